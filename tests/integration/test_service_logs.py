"""`moat logs RUN --service NAME`: what a real service printed, while the run lives and after it, without passwords."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from support.installation import Installation, end, eventually, installation
from support.places import docker_answers
from support.service_images import REDIS, TOOLS, made_images

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
]
TOKEN = "s3cr3t-of-a-service"
SAY = 'echo "the token is $API_TOKEN"; echo "and that is wrong" >&2; exec redis-server --port 7002'
PLAIN = {"image": REDIS, "port": 7002, "user": "redis", "env": {"API_TOKEN": TOKEN}, "args": ["sh", "-c", SAY]}
CACHE = {"kind": "redis", "image": REDIS}


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    made_images()
    with installation() as made:
        made.configure({"runtime": "docker", "image": TOOLS})
        made.ok("proxy", "start")
        yield made


def test_what_a_service_prints_is_followed_and_kept(moat: Installation) -> None:
    work = moat.file("work/moat.yaml", json.dumps({"services": {"plain": PLAIN, "cache": CACHE}})).parent
    run = moat.start("run", work, "--yes", "--name", "served", "--", "cat", stdin=subprocess.PIPE)
    following = None
    try:
        eventually("it is kept", lambda: b"the token is" in moat.run("logs", "served", "--service", "plain").stdout)
        following = moat.start("logs", "served", "--service", "plain", "-f")
        run.communicate(timeout=90)
        seen, _ = following.communicate(timeout=60)
    finally:
        end(run)
        if following is not None:
            end(following)

    assert run.returncode == 0
    done = moat.run("logs", "served", "--service", "plain")
    assert done.stdout == seen
    assert b"the token is [redacted]\n" in done.stdout
    assert done.stderr == b"and that is wrong\n"
    assert "Ready to accept connections" in moat.ok("logs", "served", "--service", "cache")
    assert len(moat.ok("logs", "served", "--service", "cache", "-n", "1").splitlines()) == 1
    assert "20" in moat.ok("logs", "served", "--service", "cache", "-t", "-n", "1")[:2]


def test_a_service_that_did_not_come_up_is_kept_too(moat: Installation) -> None:
    broken = {**PLAIN, "args": ["sh", "-c", "echo no room here; exit 3"]}
    work = moat.file("broken/moat.yaml", json.dumps({"services": {"plain": broken}})).parent

    assert moat.run("run", work, "--yes", "--name", "broken", "--", "true").returncode == 1

    assert moat.ok("logs", "broken", "--service", "plain") == "no room here\n"


def test_another_service_is_an_error_that_names_those_there_are(moat: Installation) -> None:
    done = moat.run("logs", "broken", "--service", "other")

    assert done.returncode == 2
    assert b"has no service 'other' that printed something; there are: plain" in done.stderr
