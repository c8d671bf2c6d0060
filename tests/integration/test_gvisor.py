"""gVisor, really: by the fallback without a door, and said as such; refused where the engine does not know it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from support.gvisor_place import docker_at, engine_with_runsc
from support.installation import Installation, installation
from support.places import docker_answers
from support.podman_place import TINY

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not docker_answers() or shutil.which("runsc") is None, reason="no docker engine, or no runsc"),
]
KERNEL = "cat /proc/version"
# The proxy's answer without the token, and with it: http_proxy is http://moat:TOKEN@ADDRESS:PORT.
ASK = """
ask() { curl -sS -m 20 -o /dev/null -w '%{http_code}\\n' "$@" http://denied.example/; }
ask --proxy "http://${http_proxy#*@}"; ask
"""


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with (
        engine_with_runsc() as (address, through),
        installation(DOCKER_HOST=address, DOCKER_CONTEXT="default") as made,
    ):
        made.through = through
        made.configure({"image": TINY, "runtime": "gvisor"})
        made.file("work/given", "from outside")
        yield made


def test_the_run_has_gvisors_kernel_and_the_proxy_by_token_and_says_so(moat: Installation) -> None:
    words = ("run", "work", "--name", "box", "--policy", "strict", "--", "sh", "-c")
    done = moat.run(*words, f"{KERNEL}; cat given; echo; echo made > made; {ASK}exit 7")
    run = json.loads(moat.ok("list", "-a", "--json"))[0]
    kernel, given, without, by_token = done.stdout.decode().splitlines()

    assert done.returncode == 7, done.stderr
    assert kernel.startswith("Linux version 4.4.0 ")  # what gVisor says of itself, whatever the machine's is
    assert (given, (moat.home / "work" / "made").read_text()) == ("from outside", "made\n")
    assert (without, by_token) == ("407", "403"), done.stderr
    assert b"no door on this engine" in done.stderr
    assert b"NOT sealed" in done.stderr
    left = ("--filter", f"label=moat.run={run['run_id']}", "--format", "{{.ID}}")
    address = moat.env["DOCKER_HOST"]
    assert docker_at(address, "ps", "-a", *left).stdout + docker_at(address, "network", "ls", *left).stdout == b""


def test_plan_and_doctor_say_that_there_is_no_door(moat: Installation) -> None:
    plan = moat.ok("run", "work", "--dry-run", "--", "true")
    checks = {each["name"]: each for each in json.loads(moat.run("doctor", "--json").stdout)["checks"]}

    assert "runtime    gvisor (no door)" in plan
    assert not json.loads(moat.ok("run", "work", "--dry-run", "--json", "--", "true"))["sealed"]
    assert "no door" in checks["gvisor"]["detail"]
    assert (checks["door in gvisor"]["state"], "no door" in checks["door in gvisor"]["detail"]) == ("warning", True)


def test_what_needs_a_door_is_refused(moat: Installation) -> None:
    moat.file("web/moat.yaml", "ports: {web: 3000}")

    done = moat.run("run", "web", "--yes", "--", "true")

    assert (done.returncode, b"no port of a run in the runtime gvisor can be reached" in done.stderr) == (2, True)


def test_an_engine_without_runsc_is_no_place_for_it() -> None:
    with installation() as made:
        made.file("work/given", "")
        done = made.run("run", "work", "--runtime", "gvisor", "--", "true")

    assert done.returncode != 0
    assert b"the runtime gvisor cannot be used: docker knows no runtime runsc" in done.stderr
    assert b"sudo runsc install" in done.stderr
