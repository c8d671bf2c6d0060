"""Somebody removes a live run's container behind moat's back: the run is over, everybody is told, nothing is left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hostile.remains import parts_of, remains
from hostile.sandbox import Place
from support.installation import Installation, end, eventually, installation
from support.places import docker_answers
from support.unix_http import ORIGIN, session_of

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
]
DOCKER = Place("docker")


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.file("work/here", "")
        made.file("tmp/x", "").unlink()
        yield made


@contextmanager
def live(moat: Installation) -> Iterator[subprocess.Popen[bytes]]:
    """A run that waits for its end."""
    script = "echo ready; sleep 51424"
    process = moat.start("run", "work", "--runtime", "docker", "--", "sh", "-c", script,
                         env={"TMPDIR": str(moat.home / "tmp")})  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", (process.communicate()[1], moat.logs())
        yield process
    finally:
        end(process)


def test_a_run_whose_container_is_removed_is_over_with_an_event_and_a_line_in_the_log(moat: Installation) -> None:
    with live(moat) as cli:
        parts = parts_of(moat, DOCKER, cli.pid)
        daemon = moat.daemon_pid()
        with session_of(moat.home / ".moat" / "daemon" / "daemon.sock").get(
            f"{ORIGIN}/v1/events?run={parts.run_id}", stream=True, timeout=60
        ) as events:
            subprocess.run(["docker", "rm", "-f", f"moat-{parts.run_id}"], check=True, capture_output=True)
            told = _data_of(events.iter_lines(), b"run_stopped")
        _, err = cli.communicate(timeout=30)

        assert told["run_id"] == parts.run_id
        assert (cli.returncode != 0, b"Traceback" in err) == (True, False), err
        assert [run["state"] for run in json.loads(moat.ok("list", "--json"))] == [told["run"]["state"]] == ["stopped"]
        eventually("the log says so", lambda: "run ended" in moat.logs())
        eventually("nothing is left", lambda: not remains(moat, parts), 30)
        assert moat.daemon_pid() == daemon
        done = moat.run("run", "work", "--runtime", "docker", "--", "echo", "works")
        assert (done.returncode, done.stdout) == (0, b"works\n"), done.stderr


def _data_of(lines: Iterator[bytes], kind: bytes) -> dict[str, Any]:
    """Return what the first event of a kind says."""
    for line in lines:
        if line == b"event: " + kind:
            return dict(json.loads(next(lines).removeprefix(b"data: ")))
    raise AssertionError(f"the stream ended without {kind!r}")
