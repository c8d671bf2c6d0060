from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import DaemonError, DaemonUnreached, GrantMissing, RunNotFound, StoreLocked, UsageError
from moat.daemon import client as module
from moat.daemon.client import DaemonClient
from moat.daemon.events import MAX_LISTENERS, Events
from moat.daemon.extras import RoutedPort
from moat.daemon.protocol import DoorInfo, RegisterRequest, RouteRequest, SetupRequest
from moat.daemon.server import bind
from moat.paths import Home

from core.daemon.making import OTHER_ID, RUN_ID, an_info
from core.daemon.test_handlers import serving as with_routes
from core.daemon.test_server import HEALTH, TOKEN, Service, serving


@contextmanager
def answering(home: Home, data: bytes) -> Iterator[None]:
    """A daemon that says data to whoever connects, and hangs up."""
    with bind(home.daemon / "daemon.sock") as sock:
        sock.listen()

        def answer() -> None:
            connection, _ = sock.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(data)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_every_call_crosses_and_comes_back_as_its_value(tmp_path: Path) -> None:
    service, client = Service(), DaemonClient(Home(tmp_path))

    def calls() -> list[Any]:
        made = client.register(RegisterRequest(RUN_ID, grants=("apple",), command=("make", "test"), auth_token=TOKEN))
        client.tell_container(TOKEN, "c1")
        client.shutdown()
        return [client.health(), client.runs(), made]

    def ends() -> Any:
        return client.end(TOKEN, 3)

    async with serving(tmp_path, service) as server:
        health, runs, made = await asyncio.to_thread(calls)
        server.is_leaving = False
        ended = await asyncio.to_thread(ends)

    assert (health, runs, ended) == (HEALTH, [an_info()], an_info(exit_code=3))
    assert (made.auth_token, made.door) == (TOKEN, DoorInfo("/door", "nonce"))
    assert service.asked[0].command == ("make", "test")
    assert TOKEN not in repr(made)
    assert TOKEN not in repr(service.asked[0])


@pytest.mark.parametrize(
    "failure",
    [
        GrantMissing("missing grants: a, b", hint="run: moat grant a\nrun: moat grant b"),
        StoreLocked("the keyring is locked", hint="unlock it"),
        UsageError("bad policy", hint="choose one"),
        RunNotFound("gone", hint="run: moat list"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_an_error_comes_back_as_itself(tmp_path: Path, failure: UsageError) -> None:
    client = DaemonClient(Home(tmp_path))
    async with serving(tmp_path, Service(failure)):
        with pytest.raises(type(failure)) as caught:
            await asyncio.to_thread(client.setup, SetupRequest())

    assert type(caught.value) is type(failure)
    assert (caught.value.problem, caught.value.hint) == (failure.problem, failure.hint)
    assert caught.value.exit_code == failure.exit_code


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(http("404 Not Found", b"404 page not found"), "HTTP 404", id="an old daemon's 404"),
        pytest.param(http("500 Oops", b"[]"), "HTTP 500", id="no error object"),
        pytest.param(http("500 Oops", b'{"error": {"code": "Path", "message": "m"}}'), "m", id="no class of ours"),
        pytest.param(http("500 Oops", b'{"error": {"code": "FromTheFuture"}}'), "HTTP 500", id="a newer error"),
        pytest.param(http("200 OK", b"nonsense"), "not JSON", id="no JSON"),
        pytest.param(http("200 OK", b'{"pid": "x"}'), "does not fit", id="wrong types"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", "does not speak HTTP", id="no HTTP"),
    ],
)
def test_a_strange_answer_is_a_daemon_error(home: Home, data: bytes, words: str) -> None:
    with answering(home, data), pytest.raises(DaemonError, match=words) as caught:
        DaemonClient(home).health()

    assert type(caught.value) is DaemonError


def test_runs_must_be_a_list(home: Home) -> None:
    with answering(home, http("200 OK", b"{}")), pytest.raises(DaemonError, match="no list"):
        DaemonClient(home).runs()


def test_no_daemon_is_an_error_that_says_how_to_start_one(home: Home) -> None:
    with pytest.raises(DaemonError, match="cannot be reached") as caught:
        DaemonClient(home).health()

    assert caught.value.hint == "run: moat proxy start"


def test_a_silent_daemon_does_not_hold_the_command_forever(home: Home) -> None:
    with bind(home.daemon / "daemon.sock") as sock:
        sock.listen()
        with pytest.raises(DaemonError, match=r"did not answer within 0\.1 s"):
            DaemonClient(home).health(0.1)


def test_a_long_home_is_no_obstacle(tmp_path: Path) -> None:
    home = Home(tmp_path / ("long" * 30))
    with answering(home, http("200 OK", b"[]")):
        assert DaemonClient(home).runs() == []


def test_the_client_is_light() -> None:
    script = "import sys, moat.daemon.client, moat.daemon.lifecycle; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert not {"aiohttp", "pydantic", "cryptography", "yaml", "keyring"} & set(done.stdout.split())
    assert module.HEALTH_TIMEOUT_S < module.TIMEOUT_S


@pytest.mark.parametrize("data", [b"", http("200 OK", b"{}")[:-1]])
def test_a_daemon_that_dies_before_or_in_its_answer_was_not_reached(home: Home, data: bytes) -> None:
    with answering(home, data), pytest.raises(DaemonUnreached, match="cannot be reached"):
        DaemonClient(home).health()


def test_what_the_daemon_would_leave_out_is_an_error_and_never_asked(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = replace(HEALTH, version="0.0.9", capabilities=("doors",))
    monkeypatch.setattr(DaemonClient, "health", lambda _: old)
    client = DaemonClient(home)  # nobody listens there: asking would be another error

    with pytest.raises(DaemonError, match=r"version 0\.0\.9.*: network-rules, profiles") as caught:
        client.register(RegisterRequest("run_0123456789ab", network_rules=("deny * example.com",), profile="work"))
    assert caught.value.hint == "run: moat proxy restart"
    with pytest.raises(DaemonError, match="profiles"):
        client.setup(SetupRequest(profile="work"))


def test_a_daemon_of_another_user_is_told_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with bind(home.daemon / "daemon.sock") as sock:
        sock.listen()
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)

        with pytest.raises(DaemonUnreached, match="another user"):
            DaemonClient(home).health()


async def test_events_come_until_the_daemon_leaves(tmp_path: Path) -> None:
    events, client = Events(), DaemonClient(Home(tmp_path))

    def listen() -> list[str]:
        with client.events(RUN_ID) as found:
            loop.call_soon_threadsafe(tell)
            return [event.kind for event in found]

    def tell() -> None:
        events.run_started(an_info())
        events.run_started(an_info(OTHER_ID))
        events.tell("grant")
        events.close()

    loop = asyncio.get_running_loop()
    async with with_routes(tmp_path, events):
        assert await asyncio.to_thread(listen) == ["run_started", "grant", "closed"]


async def test_listeners_beyond_the_most_are_refused_with_the_reason(tmp_path: Path) -> None:
    async with with_routes(tmp_path, events := Events()):
        with ExitStack() as stack:
            for _ in range(MAX_LISTENERS):
                stack.enter_context(events.listening())

            def listen() -> None:
                with DaemonClient(Home(tmp_path)).events():
                    raise AssertionError("one too many")

            with pytest.raises(DaemonError, match="too many listeners"):
                await asyncio.to_thread(listen)


def test_events_that_break_off_are_an_error(home: Home) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    stream = answering(home, head + b"d\r\n: listening\n\n\r\n")
    with stream, DaemonClient(home).events() as events, pytest.raises(DaemonUnreached, match="broke off"):
        next(events)


async def test_routes_and_one_run_are_asked_for_and_an_old_daemon_s_404_is_an_error_with_a_hint(
    tmp_path: Path,
) -> None:
    client = DaemonClient(Home(tmp_path))
    asked = RouteRequest(RUN_ID, (RoutedPort("web", 3000),))
    async with with_routes(tmp_path) as front:
        made = await asyncio.to_thread(client.route, "calm-otter", asked)
        await asyncio.to_thread(client.unroute, "calm/otter")
        assert (await asyncio.to_thread(client.run, RUN_ID)).requests == 7
    assert made.urls == {"web": "http://web.a.localhost:8080/"}
    assert front.asked == [("calm-otter", asked), "calm/otter"]

    async with serving(tmp_path, Service()):
        with pytest.raises(DaemonError) as refused:
            await asyncio.to_thread(client.route, "calm-otter", asked)
    assert "moat proxy restart" in refused.value.hint
