from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from moat.api.errors import DaemonError, GrantMissing, UsageError
from moat.config.settings import Settings
from moat.daemon import compose
from moat.daemon.compose import Leaving
from moat.daemon.extras import GivenCredential
from moat.daemon.lifecycle import ensure_running, restart, stop
from moat.daemon.protocol import RegisterRequest, SetupRequest
from moat.paths import Home, private_folder
from moat.trace.store import RunStore

from core.daemon.making import OTHER_ID, RUN_ID, an_info, ask

pytestmark = pytest.mark.timeout(60)  # real daemons


def test_the_parts_work_together(daemon_home: Home) -> None:
    client = ensure_running(daemon_home)
    made = client.register(RegisterRequest(RUN_ID, needs_door=False))
    state = asyncio.run(ask(made.proxy_port, f"record {RUN_ID}"))
    info = client.end(made.auth_token, 0)

    assert list(state["runs"]) == [RUN_ID]
    assert (info.requests, info.denied, info.state) == (1, 1, "stopped")
    assert client.setup(SetupRequest()).ca_certificate.startswith("-----BEGIN CERTIFICATE")
    assert "PRIVATE" not in client.setup(SetupRequest()).ca_certificate


def test_a_grant_that_is_not_stored_is_an_error_of_its_request_only(daemon_home: Home) -> None:
    client = ensure_running(daemon_home)

    with pytest.raises(GrantMissing, match="github"):
        client.register(RegisterRequest(RUN_ID, grants=("github",)))

    assert client.runs() == []


def test_a_broken_settings_file_is_an_error_of_each_run_and_not_of_the_daemon(daemon_home: Home) -> None:
    private_folder(daemon_home.root)
    daemon_home.config.write_text("upstreem: {}")
    client = ensure_running(daemon_home)

    with pytest.raises(UsageError, match="upstreem"):
        client.register(RegisterRequest(RUN_ID))

    daemon_home.config.unlink()
    client.register(RegisterRequest(RUN_ID))


def test_what_the_last_daemon_left_is_put_in_order(daemon_home: Home) -> None:
    store = RunStore(daemon_home)
    store.write(an_info(OTHER_ID, state="running"))
    (private_folder(daemon_home.door(OTHER_ID)) / "door.sock").touch()
    private_folder(daemon_home.inside(OTHER_ID))

    ensure_running(daemon_home)

    assert store.read(OTHER_ID).state == "lost"
    assert not daemon_home.door(OTHER_ID).exists()


def test_an_orderly_end_writes_everything_down(daemon_home: Home) -> None:
    client = ensure_running(daemon_home)
    made = client.register(RegisterRequest(RUN_ID, needs_door=False))
    asyncio.run(ask(made.proxy_port, f"record {RUN_ID}"))

    stop(daemon_home)

    info = RunStore(daemon_home).read(RUN_ID)
    assert (info.state, info.requests) == ("lost", 1)
    assert (daemon_home.run(RUN_ID) / "network.jsonl").exists()


async def test_how_long_a_daemon_is_up_is_counted_by_no_clock_that_is_set() -> None:
    identity = compose.Identity(19080, datetime.now(UTC) + timedelta(days=1), time.monotonic() - 5)
    parts = SimpleNamespace(registry=(), worker=SimpleNamespace(pid=1))
    services = SimpleNamespace(routes=SimpleNamespace(port=0), refreshers=SimpleNamespace(states=tuple))

    assert compose._health(identity, parts, services).uptime_s >= 5  # type: ignore[arg-type] # stand-ins


class Looking:
    """Stands in for whoever puts back what is missing."""

    async def forever(self) -> None:
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("way", ["keep", "end_runs"])
async def test_what_a_daemon_takes_down_as_it_leaves_is_not_put_back(way: str) -> None:
    leaving, parts = Leaving(), SimpleNamespace(installation=SimpleNamespace(settings=Settings))
    async with asyncio.TaskGroup() as group:
        looking, idling = compose._staying(group, Looking(), parts, lambda: True, leaving)  # type: ignore[arg-type] # stand-ins
        await asyncio.sleep(0)
        getattr(leaving, way)()

        assert leaving.asked.is_set()
        await asyncio.wait([looking])  # and nobody had to ask again
        idling.cancel()
    assert looking.cancelled()


def test_a_folder_that_others_may_write_refuses_runs_and_ends_no_daemon(daemon_home: Home) -> None:
    client = ensure_running(daemon_home)
    pid = client.health().pid
    daemon_home.daemon.chmod(0o770)
    with pytest.raises(DaemonError, match="written by others"):
        client.register(RegisterRequest(RUN_ID, needs_door=False))

    daemon_home.daemon.chmod(0o700)

    assert client.register(RegisterRequest(OTHER_ID, needs_door=False)).run_id == OTHER_ID
    assert client.health().pid == pid


def test_what_was_counted_goes_over_to_the_next_daemon(daemon_home: Home) -> None:
    client = ensure_running(daemon_home)
    made = client.register(RegisterRequest(RUN_ID, needs_door=False))
    asyncio.run(ask(made.proxy_port, f"record {RUN_ID}"))

    restart(daemon_home)

    info = client.run(RUN_ID)
    assert (info.requests, info.denied, info.state) == (1, 1, "starting")


def test_runs_that_the_next_daemon_could_not_serve_are_counted(daemon_home: Home) -> None:
    client = ensure_running(daemon_home)
    values = (GivenCredential("api.test", "X-Key", "k3y-s3cr3t"),)
    made = client.register(RegisterRequest(RUN_ID, needs_door=False, credentials=values))
    client.register(RegisterRequest(OTHER_ID, needs_door=False))

    assert client.health().bound_run_count == 1
    client.end(made.auth_token, 0)
    assert client.health().bound_run_count == 0
