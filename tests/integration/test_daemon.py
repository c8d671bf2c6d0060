"""The real daemon, worker and gates in bubblewrap, with a temporary MOAT_HOME and an upstream on loopback."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api.errors import SandboxFailed
from moat.daemon.lifecycle import ensure_running, restart, stop
from moat.daemon.process import start_time
from moat.daemon.protocol import RegisterRequest, SetupRequest
from moat.paths import Home
from moat.trace.network import read_exchanges
from moat.trace.store import RunStore
from support.living import SECRET, USER_URL, a_sealed_run, ended_after, granted, killed, served, until
from support.upstream import Upstream, running_upstream

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream(authorization=f"Bearer {SECRET}") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An installation with a github grant whose API is the upstream."""
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    with ended_after(granted(tmp_path / "home", upstream)) as home:
        yield home


async def test_a_sealed_run_spends_a_credential_that_it_does_not_have(
    home: Home, upstream: Upstream, tmp_path: Path
) -> None:
    client = ensure_running(home)
    assert "api.github.com" in client.setup(SetupRequest(grants=("github",))).hosts
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert [each.state for each in client.runs()] == ["running"]
        assert await sealed.request() == "200"
        sealed.to.close()
        assert await sealed.sandbox.wait() == 5
    info = client.end(sealed.made.auth_token, 5)

    assert [each.header("Authorization") for each in upstream.seen] == [f"Bearer {SECRET}"]
    assert (info.state, info.exit_code, info.requests, info.denied) == ("stopped", 5, 1, 0)
    exchanges = list(read_exchanges(RunStore(home).network(info.run_id)))
    assert [(each.host, each.status, each.grants) for each in exchanges] == [("api.github.com", 200, ("github",))]
    (exchange,) = exchanges
    assert (exchange.injected, exchange.decision, exchange.protocol) == (("Authorization",), "allow", "http/1.1")
    assert 0 < exchange.first_byte_ms <= exchange.duration_ms
    assert exchange.id.startswith("req_")
    for file in (home.run(info.run_id) / "run.json", RunStore(home).network(info.run_id), home.daemon / "daemon.log"):
        assert SECRET.encode() not in file.read_bytes()
    assert not home.door(info.run_id).exists()


async def test_a_killed_worker_is_healed_while_the_run_lives(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        await until(lambda: client.runs()[0].requests == 1)  # told after the answer: a killed worker may keep its last
        dead = client.health().worker_pid
        os.kill(dead, signal.SIGKILL)

        assert await sealed.request() == "200"

        assert client.health().worker_pid not in (0, dead)
        assert client.end(sealed.made.auth_token, 0).requests == 2


async def test_a_killed_daemon_shuts_the_run_s_way_out_until_its_successor_has_taken_it_over(
    home: Home, upstream: Upstream, tmp_path: Path
) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        health = client.health()
        killed(health.pid)
        await until(lambda: start_time(health.worker_pid) is None)  # its channel ended

        sealed.to.write(f"{USER_URL}\n".encode())  # nobody accepts: it waits in the backlog
        again = ensure_running(home)

        assert (await sealed.out.readline()).decode().strip() in ("200", "000")  # "000": it was the door's probe's turn
        await until(lambda: again.runs()[0].state == "running")
        await served(sealed)
        assert again.health().proxy_port == health.proxy_port
        assert again.end(sealed.made.auth_token, 0).run_id == sealed.made.run_id  # the same token
    assert {each.header("Authorization") for each in upstream.seen} == {f"Bearer {SECRET}"}


async def test_a_daemon_that_is_told_to_leave_hands_its_runs_to_the_next_one(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        health = client.health()
        os.kill(health.pid, signal.SIGTERM)
        os.waitpid(health.pid, 0)  # noqa: ASYNC222 # bounded by the daemon itself

        again = ensure_running(home)
        await served(sealed)
        assert again.health().pid != health.pid
        assert [each.run_id for each in again.runs()] == [sealed.made.run_id]


async def test_a_restart_lets_an_answer_that_is_on_its_way_come_to_its_end(
    home: Home, upstream: Upstream, tmp_path: Path
) -> None:
    client = ensure_running(home)
    script = "while read url; do curl -skN -m 20 -o /dev/null -w '%{http_code} %{exitcode}\\n' \"$url\"; done"
    async with a_sealed_run(home, client, tmp_path, script=script) as sealed, asyncio.TaskGroup() as group:
        sealed.to.write(b"https://api.github.com/sse\n")
        await until(lambda: upstream.seen)
        group.create_task(asyncio.to_thread(restart, home))
        await until(lambda: not (home.daemon / "daemon.sock").exists())
        upstream.go_on()

        assert (await sealed.out.readline()).decode().strip() == "200 0"


@pytest.mark.parametrize("is_long", [False, True], ids=["that ends in time", "without end"])
async def test_a_daemon_that_is_stopped_lets_an_answer_that_is_on_its_way_come_to_its_end(
    home: Home, upstream: Upstream, tmp_path: Path, is_long: bool
) -> None:
    client = ensure_running(home)
    pid = client.health().pid
    script = 'while read url; do curl -skN -m 60 -o /dev/null "$url"; done'
    async with a_sealed_run(home, client, tmp_path, script=script) as sealed, asyncio.TaskGroup() as group:
        sealed.to.write(b"https://api.github.com/sse\n")
        await until(lambda: upstream.seen)
        stopping = group.create_task(asyncio.to_thread(stop, home))
        await until(lambda: not (home.daemon / "daemon.sock").exists())
        if not is_long:
            upstream.go_on()
        assert await stopping
        upstream.go_on()
    store = RunStore(home)

    (exchange,) = read_exchanges(store.network(sealed.made.run_id))
    assert (exchange.status, exchange.outcome) == (200, "forwarded")
    assert (exchange.reason, exchange.response_bytes) == (("the run was stopped", 13) if is_long else ("", 27))
    info = store.read(sealed.made.run_id)
    assert (info.state, info.requests) == ("lost", 1)
    assert start_time(pid) is None
    assert not [name for name in ("daemon.sock", "daemon.lock") if (home.daemon / name).exists()]
    assert sealed.made.run_id not in (home.daemon / "runs.json").read_text()


async def test_when_the_gate_is_killed_the_run_is_over(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        os.kill(int(sealed.sandbox.container_id), signal.SIGKILL)

        with pytest.raises(SandboxFailed):
            await sealed.sandbox.wait()
        await until(lambda: client.runs() == [])

    assert RunStore(home).read(sealed.made.run_id).state == "lost"


async def test_a_grant_that_is_withdrawn_is_not_spent_any_more(home: Home, upstream: Upstream, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        client.register(RegisterRequest(sealed.made.run_id, auth_token=sealed.made.auth_token))

        assert await sealed.request() == "401"

    assert [each.header("Authorization") for each in upstream.seen] == [f"Bearer {SECRET}", None]


async def test_two_runs_at_once_each_have_their_own_door(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with (
        a_sealed_run(home, client, tmp_path / "one") as one,
        a_sealed_run(home, client, tmp_path / "two") as two,
    ):
        assert await one.request() == await two.request() == "200"
        client.end(one.made.auth_token, 0)
        assert await two.request() == "200"
        assert [info.run_id for info in client.runs()] == [two.made.run_id]
