"""CLIs that are killed when their containers exist and nobody was told: the daemon removes what they left."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from moat.daemon import lifecycle
from moat.daemon.lifecycle import ensure_running
from moat.paths import Home
from moat.trace.store import RunStore
from support.docker_place import is_there
from support.docker_run import IMAGE
from support.installation import end, eventually

from faults.counts import Counts

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not is_there(), reason="no container engine with the image"),
]
AT_ONCE = 4  # a machine of two cores makes so many in a few seconds
IMPATIENT = """
import sys
from moat.daemon import watch
watch.GRACE_S, watch.LINGER_S = 15.0, 0.2
from moat.daemon.main import main
sys.exit(main())
"""
CLI = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from dataclasses import replace
from pathlib import Path
from moat.api.runtimes import DoorTicket, Stdio
from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from moat.runtimes.docker import Docker
from support.sealed import a_spec

async def main():
    os.environ["MOAT_HOME"] = sys.argv[1]
    home = Home(Path(sys.argv[1]))
    made = ensure_running(home).register(RegisterRequest(new_run_id(), runtime="docker"))
    private_folder(home.inside(made.run_id))
    async def created(container_id):
        print(made.run_id, flush=True)
        await asyncio.Event().wait()
    workspace = private_folder(Path(sys.argv[2]) / "workspace")
    spec = replace(a_spec(["sleep", "51425"], workspace), run_id=made.run_id, image={IMAGE!r})
    ticket = DoorTicket(made.run_id, Path(made.door.folder), made.door.nonce)
    await Docker().launch(spec, ticket, Stdio(0, 2, 2), created)

asyncio.run(main())
"""


def test_containers_that_nobody_was_told_of_are_removed(
    home: Home, tmp_path: Path, times: int, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shutil.which("docker") is not None
    monkeypatch.setattr(lifecycle, "COMMAND", (sys.executable, "-P", "-c", IMPATIENT))
    client = ensure_running(home)
    _killed(home, tmp_path, 1, counts)
    eventually("the first run is reaped", lambda: client.runs() == [], 60)
    before = counts.now()

    for _ in range(0, times, AT_ONCE):
        told = _killed(home, tmp_path, AT_ONCE, counts)

        eventually("every run is reaped", lambda: client.runs() == [], 60)
        counts.become(before)
        assert {RunStore(home).read(run_id).state for run_id in told} == {"lost"}
    assert before.containers == ()


def _killed(home: Home, tmp_path: Path, number: int, counts: Counts) -> list[str]:
    """Have CLIs make a run's containers, and die; return the runs."""
    words = [sys.executable, "-c", CLI, str(home.root), str(tmp_path)]
    clis = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(number)]
    try:
        told = [cli.stdout.readline().decode().strip() for cli in clis if cli.stdout is not None]
        there = counts.now().containers
    finally:
        for cli in clis:
            end(cli)
    assert all(f"moat-{run_id}" in there for run_id in told), (told, there)
    return told
