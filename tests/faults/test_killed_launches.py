"""kill -9 of a launcher before each step of what makes a run and undoes it: nothing is left, and the next run works."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from support.docker_place import docker
from support.installation import Installation, eventually, installation
from support.podman_place import WITH_PODMAN, podman
from support.service_images import made_images

pytestmark = pytest.mark.timeout(300)  # some fifty runs, one after the other
RUNTIMES = [
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("podman", marks=WITH_PODMAN),
]
LIMIT_S = 30.0
AT_ONCE = 4
THOROUGH = 20  # `make faults`: every step; otherwise some of them


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        made.ok("proxy", "start")
        yield made


@pytest.fixture(autouse=True)
def _images(request: pytest.FixtureRequest) -> None:
    if "docker" in request.node.name:
        made_images()


def launched(moat: Installation, runtime: str, step: int, *others: int) -> tuple[int, bytes]:
    """Launch up to a step, and kill others then too; return exit code and output."""
    words = [sys.executable, "-m", "faults.dying", runtime, str(moat.home / "work"), f"step-{step}", str(step)]
    words += map(str, others)
    env = moat.environment({"PYTHONPATH": str(Path(__file__).parents[1])})
    done = subprocess.run(words, env=env, cwd=moat.home, capture_output=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr[-2000:]


def leftovers(moat: Installation) -> list[str]:
    """Return what is left of runs: containers, folders, sockets, processes, runs that count as live."""
    state = moat.home / ".moat"
    runs = json.loads(moat.ok("list", "--json"))
    found = [f"live: {run['name']}" for run in runs if run["state"] in ("starting", "running")]
    for run in runs:
        of_this_run = ("--filter", f"label=moat.run={run['run_id']}", "--format", "{{.Names}}")
        if client := {"docker": docker, "podman": podman}.get(run["runtime"]):
            found += [*client("ps", "-a", *of_this_run).split(), *client("network", "ls", *of_this_run).split()]
    found += [str(path) for folder in ("doors", "inside") for path in (state / folder).glob("*")]
    found += [str(path) for path in (state / "runs").glob("*/*.sock")]
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            text = path.read_bytes() + path.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if b"faults.dying" in text and str(moat.home).encode() in text:
            found.append(path.parent.name)
    return found


def steps_of(moat: Installation, runtime: str) -> int:
    """Return how many steps a whole run has."""
    code, said = launched(moat, runtime, 0)
    assert code == 0, said
    steps, exit_code = map(int, said.split())
    assert exit_code == 0
    assert steps > 30
    return steps


def nothing_is_left(moat: Installation) -> None:
    with contextlib.suppress(AssertionError):
        eventually("nothing is left", lambda: not leftovers(moat), LIMIT_S)
    assert leftovers(moat) == []  # which says what is


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_launcher_killed_before_any_step_leaves_nothing(moat: Installation, runtime: str, times: int) -> None:
    every = range(1, steps_of(moat, runtime) + 1, 1 if times >= THOROUGH else 5)

    # Each dies by itself and mostly waits for others, so that some die at once; whose step it was its own trace says.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = dict(zip(every, pool.map(partial(launched, moat, runtime), every), strict=True))

    assert {step: end for step, end in ends.items() if end[0] != -signal.SIGKILL} == {}
    nothing_is_left(moat)
    last = launched(moat, runtime, 0)
    assert last[0] == 0, last


@pytest.mark.parametrize("runtime", RUNTIMES[:2])  # podman takes docker's steps
def test_what_launcher_and_daemon_leave_is_removed_by_the_next_command(
    moat: Installation, runtime: str, times: int
) -> None:
    every = range(2, steps_of(moat, runtime) + 1, 2 if times >= THOROUGH else 11)

    for step in every:
        code, said = launched(moat, runtime, step, moat.daemon_pid())
        assert code == -signal.SIGKILL, said
        moat.ok("proxy", "start")

    nothing_is_left(moat)
    last = launched(moat, runtime, 0)
    assert last[0] == 0, last
