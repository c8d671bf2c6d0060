"""Two versions side by side: the newer one takes over with every run, the older one never does; there is no loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import moat
import pytest
from moat.api.errors import DaemonError
from moat.daemon import client as client_module
from moat.daemon import lifecycle, state
from moat.daemon.client import DaemonClient
from moat.daemon.extras import GivenCredential
from moat.daemon.lifecycle import ensure_running, restart
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home
from support.living import a_sealed_run, killed, served

from faults.counts import Counts

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(600)]

START = "import sys, moat; moat.__version__ = {version!r}; from moat.daemon.main import main; sys.exit(main())"

DREAMING = """import sys, moat; moat.__version__ = {version!r}
from moat.daemon import runs, state
runs.needed_capabilities = lambda request: ("dreams",)
state.CAPABILITIES += ("dreams",)
state.VERSION = {format}
from moat.daemon.main import main; sys.exit(main())
"""

CLI = """
import sys
from pathlib import Path
import moat
from moat.daemon import lifecycle
from moat.paths import Home
moat.__version__ = sys.argv[1]
lifecycle.COMMAND = (sys.executable, "-P", "-c", sys.argv[2])
home = Home(Path(sys.argv[3]))
print(lifecycle.patiently(home, lifecycle.ensure_running(home), lambda client: client.health().pid))
"""


def be(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as a CLI of this version from now on, which starts daemons of its own version."""
    monkeypatch.setattr(moat, "__version__", version)
    monkeypatch.setattr(lifecycle, "COMMAND", (sys.executable, "-P", "-c", START.format(version=version)))


def be_dreaming(version: str, monkeypatch: pytest.MonkeyPatch, format_version: int = state.VERSION) -> None:
    """Act as a CLI of this version, whose daemons are capable of more than ours."""
    be(version, monkeypatch)
    code = DREAMING.format(version=version, format=format_version)
    monkeypatch.setattr(lifecycle, "COMMAND", (sys.executable, "-P", "-c", code))


async def test_a_newer_command_takes_over_with_every_run_and_an_older_one_never_does(
    home: Home, tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    be("1.0", monkeypatch)
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        await served(sealed)
        held = await asyncio.to_thread(counts.now)
        for number in range(1, times + 1):
            be(f"1.{number}", monkeypatch)
            new = ensure_running(home).health()
            assert new.version == f"1.{number}"
            await served(sealed)

            for version in (f"1.{number - 1}", f"1.{number}.dev1", "unknown", f"1.{number}"):
                be(version, monkeypatch)
                assert ensure_running(home).health().pid == new.pid
            assert counts.daemons() == [new.pid]
            assert [run.run_id for run in client.runs()] == [sealed.made.run_id]
        await asyncio.to_thread(counts.become, held)
        assert client.end(sealed.made.auth_token, 0).state == "stopped"  # the same token


async def test_what_a_newer_daemon_made_is_closed_under_an_older_one_and_comes_back_with_a_newer_one(
    home: Home, tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_dreaming("1.1", monkeypatch)
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        await served(sealed)
        before = _kept(home)
        for _ in range(times):
            killed(client.health().pid)
            be("1.0", monkeypatch)
            older = ensure_running(home)
            assert [run.run_id for run in older.runs()] == [sealed.made.run_id]
            assert [await sealed.request() for _ in range(3)][-1] in ("503", "000")
            assert _kept(home) == before

            be_dreaming("1.1", monkeypatch)
            assert ensure_running(home).health().version == "1.1"
            await served(sealed)
        assert client.end(sealed.made.auth_token, 0).state == "stopped"


async def test_an_older_daemon_does_not_start_beside_a_file_that_it_cannot_read_and_nothing_is_lost(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_dreaming("1.1", monkeypatch, state.VERSION + 1)
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        await served(sealed)
        killed(client.health().pid)
        before = state.state_file(home).read_bytes()
        be("1.0", monkeypatch)
        with pytest.raises(DaemonError, match=r"written down by moat 1\.1"):
            ensure_running(home)
        assert state.state_file(home).read_bytes() == before

        be_dreaming("1.1", monkeypatch, state.VERSION + 1)
        ensure_running(home)
        await served(sealed)


def _kept(home: Home) -> list[dict[str, Any]]:
    """Return what is written down of live runs, but for their counters."""
    runs: list[dict[str, Any]] = json.loads(state.state_file(home).read_bytes())["runs"]
    for run in runs:
        del run["info"]["requests"], run["info"]["denied"]
    return runs


def test_commands_of_two_versions_at_once_end_with_one_daemon_of_the_newer_one(
    home: Home, times: int, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    be("1.0", monkeypatch)
    before = ensure_running(home).health()
    held = counts.now()
    for number in range(times):
        older, newer = f"1.{number}", f"1.{number + 1}"
        clis = [a_cli(home, version) for _ in range(6) for version in (older, newer)]
        told = {version: set[int]() for version in (older, newer)}
        for version, cli in clis:
            out, err = cli.communicate(timeout=120)
            assert cli.returncode == 0, err
            told[version].add(int(out))

        new = DaemonClient(home).health()
        assert (new.version, new.pid != before.pid) == (newer, True)
        assert told[newer] == {new.pid}
        assert told[older] <= {before.pid, new.pid}
        assert counts.daemons() == [new.pid]
        before = new
    counts.become(held)


def a_cli(home: Home, version: str) -> tuple[str, subprocess.Popen[str]]:
    """Start a command of a version, in a process of its own; it says which daemon it got."""
    words = [sys.executable, "-c", CLI, version, START.format(version=version), str(home.root)]
    return version, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_newer_command_leaves_a_daemon_alone_that_holds_credentials_in_its_memory_only(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    be("1.0", monkeypatch)
    client = ensure_running(home)
    values = (GivenCredential("api.example.com", "X-Key", "k3y-s3cr3t"),)
    made = client.register(RegisterRequest(new_run_id(), needs_door=False, credentials=values))
    be("1.1", monkeypatch)
    assert ensure_running(home).health().version == "1.0"

    client.end(made.auth_token, 0)

    assert ensure_running(home).health().version == "1.1"


def test_what_an_older_daemon_does_not_understand_is_an_error_before_the_run(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    be("1.0", monkeypatch)
    client = ensure_running(home)
    monkeypatch.setattr(
        client_module, "needed_capabilities", lambda request: ("network-rules", "thoughts-of-the-future")
    )

    with pytest.raises(DaemonError, match=r"version 1\.0.*thoughts-of-the-future") as caught:
        client.register(RegisterRequest(new_run_id(), needs_door=False))

    assert caught.value.hint == "run: moat proxy restart"
    assert client.runs() == []


def test_a_restart_keeps_the_runs(home: Home, times: int, monkeypatch: pytest.MonkeyPatch, counts: Counts) -> None:
    be("1.0", monkeypatch)
    client = ensure_running(home)
    made = client.register(RegisterRequest(new_run_id(), needs_door=False))
    restart(home)
    held = counts.now()
    for _ in range(times):
        before = client.health()

        after = restart(home).health()

        assert (after.pid != before.pid, after.proxy_port) == (True, before.proxy_port)
        assert [run.run_id for run in client.runs()] == [made.run_id]
    counts.become(held)
    assert client.end(made.auth_token, 0).state == "stopped"
