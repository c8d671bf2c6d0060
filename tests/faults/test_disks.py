"""A full disk, a home that turns read-only, files that are removed: what runs goes on, what cannot be is told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from core.daemon.making import an_info
from moat.api.errors import DaemonError
from moat.audit.reading import AuditReader
from moat.audit.verify import Pin
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running, stop
from moat.daemon.process import living
from moat.daemon.protocol import RegisterRequest, RegisterResponse
from moat.ids import new_run_id
from moat.paths import Home
from moat.trace.store import RunStore
from support.installation import eventually
from support.living import Sealed, a_sealed_run, ended_after, granted, killed, served, until
from support.upstream import Upstream

from faults.counts import Counts

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount"),
]
SIZE = "8m"


@contextmanager
def mounted(place: Path, *words: str) -> Iterator[Path]:
    """Mount something at place; unmounted afterwards, whoever still looks at it."""
    place.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", *words, str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def small(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An installation on a disk of its own."""
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs") as disk:
        home = granted(disk / "home", upstream)
        before = Counts(home).now()
        with ended_after(home):
            yield home
        Counts(home).become(before)


def a_registration(client: DaemonClient) -> RegisterResponse:
    return client.register(RegisterRequest(new_run_id(), needs_door=False))


async def rests(sealed: Sealed) -> None:
    """Ask until the run is answered at all: its credentials are not spent while the audit cannot be written."""
    async with asyncio.timeout(30):
        while (answer := await sealed.request()) != "503":
            assert answer == "000", answer
            await asyncio.sleep(0.1)


@contextmanager
def full(home: Home) -> Iterator[None]:
    """Fill the disk to its last byte."""
    hog = home.root.parent / "hog"
    with hog.open("wb", buffering=0) as file:
        try:
            for size in (65_536, 4096, 1):
                while file.write(b"x" * size) == size:
                    pass
        except OSError:
            pass
    try:
        yield
    finally:
        hog.unlink()


async def test_with_a_full_disk_runs_go_on_and_new_ones_are_refused(small: Home, tmp_path: Path, times: int) -> None:
    client = ensure_running(small)
    counts = Counts(small)
    async with a_sealed_run(small, client, tmp_path) as sealed:
        await served(sealed)
        first = None
        for _ in range(times):
            with full(small):
                with pytest.raises(DaemonError, match=r"(?i)no space left"):
                    a_registration(client)
                assert await sealed.request() == "503"  # no use of a credential that the audit does not have
                assert [run.run_id for run in client.runs()] == [sealed.made.run_id]
            await served(sealed)
            made = a_registration(client)
            assert client.end(made.auth_token, None).state == "stopped"
            seen = await asyncio.to_thread(counts.now)
            first = first or seen
        assert first is not None
        await asyncio.to_thread(counts.become, first)
        assert client.end(sealed.made.auth_token, 0).state == "stopped"
    client.seal()
    with AuditReader(small.audit) as reader:
        assert reader.verify(Pin()).is_whole
        assert list(reader.entries(sealed.made.run_id))[-1].kind == "ended"


async def test_a_run_that_ends_while_the_disk_is_full_is_over(small: Home, times: int) -> None:
    client = ensure_running(small)
    counts, first = Counts(small), None
    for _ in range(times):
        made = a_registration(client)
        with full(small):
            assert client.end(made.auth_token, 3).exit_code == 3
            assert client.runs() == []
        first = first or counts.now()
        counts.become(first)


async def test_a_daemon_killed_while_the_disk_is_full_is_followed_by_one_that_has_its_runs(
    small: Home, tmp_path: Path, times: int
) -> None:
    client = ensure_running(small)
    counts = Counts(small)
    async with a_sealed_run(small, client, tmp_path) as sealed:
        await served(sealed)
        first = await asyncio.to_thread(counts.now)
        for _ in range(times):
            lost = an_info(new_run_id(), state="running")
            RunStore(small).write(lost)  # of a daemon long ago
            with full(small):
                killed(client.health().pid)
                client = ensure_running(small)
                await rests(sealed)
                assert [run.run_id for run in client.runs()] == [sealed.made.run_id]
            killed(client.health().pid)
            client = ensure_running(small)
            await served(sealed)
            assert [run.run_id for run in client.runs()] == [sealed.made.run_id]
            assert RunStore(small).read(lost.run_id).state == "lost"
            await asyncio.to_thread(counts.become, first)


async def test_a_home_that_turns_read_only_refuses_runs_and_keeps_those_there_are(
    home: Home, tmp_path: Path, times: int, counts: Counts
) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        await served(sealed)
        first = await asyncio.to_thread(counts.now)
        for _ in range(times):
            with read_only(home):
                with pytest.raises(DaemonError, match=r"(?i)read-only"):
                    a_registration(client)
                await served(sealed)
                assert [run.run_id for run in client.runs()] == [sealed.made.run_id]
            client.end(a_registration(client).auth_token, None)
            await asyncio.to_thread(counts.become, first)
    stop(home)
    with read_only(home), pytest.raises(DaemonError, match=r"(?i)read-only"):
        ensure_running(home)


async def test_in_a_home_that_turned_read_only_a_dead_worker_is_replaced_and_the_daemon_can_be_stopped(
    home: Home, tmp_path: Path, counts: Counts
) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        await served(sealed)
        with read_only(home):
            worker = client.health().worker_pid
            os.kill(worker, signal.SIGKILL)
            await until(lambda: client.health().worker_pid not in (0, worker))
            await served(sealed)

            assert await asyncio.to_thread(stop, home)
            assert (living(home), counts.daemons()) == (None, [])
        client = ensure_running(home)  # it reads what could not be written down: the run's end
        assert client.end(sealed.made.auth_token, None).state == "stopped"


@contextmanager
def read_only(home: Home) -> Iterator[None]:
    """Lay a read-only view of the home over itself; what is open stays open."""
    with mounted(home.root, "--bind", str(home.root)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(home.root)], check=True)
        yield


async def test_a_socket_and_a_lock_that_are_removed_come_back_and_the_runs_do_not_notice(
    home: Home, tmp_path: Path, times: int, counts: Counts
) -> None:
    client = ensure_running(home)
    pid = client.health().pid
    async with a_sealed_run(home, client, tmp_path) as sealed:
        await served(sealed)
        first = await asyncio.to_thread(counts.now)
        for _ in range(times):
            for name in ("daemon.sock", "daemon.lock"):
                (home.daemon / name).unlink()
                eventually(f"{name} comes back", (home.daemon / name).exists)
            assert ensure_running(home).health().pid == living(home) == pid
            assert counts.daemons() == [pid]
            await served(sealed)
            await asyncio.to_thread(counts.become, first)
        (home.daemon / "daemon.lock").unlink()
        killed(pid)
        client = ensure_running(home)
        await served(sealed)
        assert [run.run_id for run in client.runs()] == [sealed.made.run_id]
