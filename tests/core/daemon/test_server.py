from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import GrantMissing, MoatError, PlanConflict, RunNotFound, StoreLocked, UsageError
from moat.api.runs import RunInfo
from moat.daemon import server as server_module
from moat.daemon.protocol import (
    DoorInfo,
    Health,
    RegisterRequest,
    RegisterResponse,
    SetupRequest,
    SetupResponse,
)
from moat.daemon.server import MAX_BODY_BYTES, Server, bind, close, serve
from moat.paths import socket_address

from core.daemon.making import RUN_ID, an_info

HEALTH = Health(1, "0", 19080, 0, "2026-01-01T00:00:00+00:00", 0.5, 2)
TOKEN = "a" * 64


class Service:
    """Answers with what it was asked; raises what it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.asked: list[Any] = []

    async def setup(self, request: SetupRequest) -> SetupResponse:
        self._ask(request)
        return SetupResponse(hosts=request.grants)

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        self._ask(request)
        return RegisterResponse(request.run_id, TOKEN, 19080, DoorInfo("/door", "nonce"))

    def tell_container(self, token: str, container_id: str) -> None:
        self._ask((token, container_id))

    async def end(self, token: str, exit_code: int | None) -> RunInfo:
        self._ask((token, exit_code))
        return an_info(exit_code=exit_code)

    def list(self) -> list[RunInfo]:
        self._ask("list")
        return [an_info()]

    def _ask(self, what: Any) -> None:
        self.asked.append(what)
        if self.failure is not None:
            raise self.failure


@asynccontextmanager
async def serving(
    tmp_path: Path, service: Service, shutdown: Callable[[], None] = lambda: None
) -> AsyncIterator[Server]:
    server = Server(service, lambda: HEALTH, shutdown)
    path = tmp_path / "daemon" / "daemon.sock"
    runner = await serve(server.application(), bind(path))
    try:
        yield server
    finally:
        await close(runner, path)


async def call(tmp_path: Path, method: str, path: str, body: bytes | None = None) -> tuple[int, str, Any]:
    """Return status, content type and parsed body of one raw request."""
    reader, writer = await asyncio.open_unix_connection(socket_address(tmp_path / "daemon" / "daemon.sock"))
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    writer.write(
        f"{method} {path} HTTP/1.1\r\nHost: moat\r\nConnection: close\r\n{length}\r\n".encode() + (body or b"")
    )
    answer = await reader.read()
    writer.close()
    start, _, rest = answer.partition(b"\r\n\r\n")
    lines = start.decode().lower().split("\r\n")
    kinds = [line.partition(": ")[2] for line in lines if line.startswith("content-type")]
    return int(lines[0].split()[1]), (kinds or [""])[0], json.loads(rest) if rest else None


async def test_every_path_answers_with_its_value(tmp_path: Path) -> None:
    service = Service()
    async with serving(tmp_path, service):
        assert (await call(tmp_path, "GET", "/v1/health"))[2] == json.loads(json.dumps(asdict(HEALTH)))
        assert (await call(tmp_path, "POST", "/v1/setup", b'{"grants": ["apple"]}'))[2]["hosts"] == ["apple"]
        status, _, made = await call(tmp_path, "POST", "/v1/runs", json.dumps({"run_id": RUN_ID}).encode())
        assert (status, made["door"]) == (201, {"folder": "/door", "nonce": "nonce", "places": []})
        assert [each["run_id"] for each in (await call(tmp_path, "GET", "/v1/runs"))[2]] == [RUN_ID]
        assert (await call(tmp_path, "PATCH", f"/v1/runs/{TOKEN}", b'{"container_id": "c"}'))[0] == 204
        assert (await call(tmp_path, "DELETE", f"/v1/runs/{TOKEN}", b'{"exit_code": 3}'))[2]["exit_code"] == 3
        assert (await call(tmp_path, "DELETE", f"/v1/runs/{TOKEN}"))[2]["exit_code"] is None

    assert service.asked[0] == SetupRequest(grants=("apple",))


async def test_no_listing_holds_a_token(tmp_path: Path) -> None:
    async with serving(tmp_path, Service()):
        _, _, runs = await call(tmp_path, "GET", "/v1/runs")

    assert "token" not in json.dumps(runs)


async def test_unknown_fields_are_ignored(tmp_path: Path) -> None:
    async with serving(tmp_path, Service()):
        status, _, _ = await call(tmp_path, "POST", "/v1/setup", b'{"grants": [], "from_the_future": {"a": 1}}')

    assert status == 200


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="half"),
        pytest.param(b"\xff\xfe\x00", id="bytes"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"x"', id="a text"),
        pytest.param(b"{}", id="a field is missing"),
        pytest.param(b'{"run_id": 7}', id="a number for a text"),
        pytest.param(b'{"run_id": "r", "grants": "apple"}', id="a text for a list"),
        pytest.param(b'{"run_id": "r", "auth_token": ["tok-s3cr3t"]}', id="a secret in the wrong shape"),
        pytest.param(b"[" * 100_000, id="deeply nested"),
    ],
)
async def test_a_garbage_body_is_a_usage_error_that_quotes_nothing(tmp_path: Path, body: bytes) -> None:
    service = Service()
    async with serving(tmp_path, service):
        status, kind, answer = await call(tmp_path, "POST", "/v1/runs", body)

    assert (status, answer["error"]["code"], service.asked) == (400, "UsageError", [])
    assert kind.startswith("application/json")
    assert "s3cr3t" not in json.dumps(answer)


async def test_too_long_a_body_is_refused(tmp_path: Path) -> None:
    body = json.dumps({"run_id": "r", "workspace": "/" * MAX_BODY_BYTES}).encode()
    async with serving(tmp_path, Service()):
        status, _, answer = await call(tmp_path, "POST", "/v1/runs", body)

    assert (status, answer["error"]["code"]) == (413, "DaemonError")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v2/runs", 404), ("GET", "/", 404), ("PUT", "/v1/runs", 405)]
)
async def test_an_unknown_path_or_method_is_a_json_error(tmp_path: Path, method: str, path: str, status: int) -> None:
    async with serving(tmp_path, Service()):
        got, kind, answer = await call(tmp_path, method, path)

    assert (got, answer["error"]["code"]) == (status, "DaemonError")
    assert kind.startswith("application/json")


async def test_an_error_never_shows_a_token_of_its_path(tmp_path: Path) -> None:
    async with serving(tmp_path, Service()):
        _, _, answer = await call(tmp_path, "GET", f"/v1/runs/{TOKEN}/what")

    assert TOKEN not in json.dumps(answer)


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UsageError("bad", hint="try"), 400),
        (RunNotFound("gone", hint="look"), 404),
        (GrantMissing("missing", hint="run: moat grant a\nrun: moat grant b"), 409),
        (PlanConflict("both", hint="drop one"), 409),
        (StoreLocked("locked", hint="unlock"), 503),
        (MoatError("other", hint="hm"), 400),
    ],
)
async def test_an_error_keeps_its_class_words_and_hint(tmp_path: Path, failure: MoatError, status: int) -> None:
    async with serving(tmp_path, Service(failure)):
        got, kind, answer = await call(tmp_path, "POST", "/v1/setup", b"{}")

    expected = {"code": type(failure).__name__, "message": failure.problem, "hint": failure.hint}
    assert (got, answer) == (status, {"error": expected})
    assert kind.startswith("application/json")


async def test_a_bug_is_told_without_details_and_logged_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, Service(KeyError("inner workings"))):
        status, _, answer = await call(tmp_path, "GET", "/v1/runs")

    assert (status, answer["error"]["code"]) == (500, "DaemonError")
    assert "inner workings" not in json.dumps(answer)
    assert "inner workings" in caplog.text


async def test_a_daemon_that_leaves_says_so_and_still_tells_its_health(tmp_path: Path) -> None:
    left = asyncio.Event()
    async with serving(tmp_path, Service(), left.set):
        status, _, _ = await call(tmp_path, "POST", "/v1/shutdown")
        await left.wait()
        refused, _, answer = await call(tmp_path, "POST", "/v1/setup", b"{}")
        health, _, _ = await call(tmp_path, "GET", "/v1/health")

    assert (status, refused, health) == (202, 503, 200)
    assert "finishing" in answer["error"]["message"]


async def test_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, Service()):
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        _, _, answer = await call(tmp_path, "GET", "/v1/runs")

    assert "another user" in answer["error"]["message"]


def test_the_socket_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with bind(tmp_path / "daemon" / "daemon.sock"):
            assert (tmp_path / "daemon" / "daemon.sock").stat().st_mode & 0o777 == 0o600
            assert (tmp_path / "daemon").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced_and_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30) / "daemon.sock"
    for _ in range(2):
        with bind(path) as sock:
            sock.listen()
            assert sock.family == socket.AF_UNIX


def test_a_folder_in_the_socket_s_place_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "daemon" / "daemon.sock"
    (path / "inside").mkdir(parents=True, mode=0o700)
    path.parent.chmod(0o700)

    bind(path).close()

    assert path.is_socket()
    assert (path.with_name("daemon.sock.broken") / "inside").is_dir()


async def test_a_registration_that_is_slow_is_answered_though_the_daemon_is_leaving(tmp_path: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Service):
        async def register(self, request: RegisterRequest) -> RegisterResponse:
            asked.set()
            await go_on.wait()
            return await super().register(request)

    path = tmp_path / "daemon" / "daemon.sock"
    server = Server(Slow(), lambda: HEALTH, lambda: None)
    runner = await serve(server.application(), bind(path))
    async with asyncio.TaskGroup() as group:
        registering = group.create_task(call(tmp_path, "POST", "/v1/runs", json.dumps({"run_id": RUN_ID}).encode()))
        await asked.wait()
        server.is_leaving = True
        leaving = group.create_task(close(runner, path))
        await asyncio.sleep(0)
        go_on.set()
        await leaving

    assert registering.result()[0] == 201


@pytest.mark.parametrize("turns", range(8))
async def test_who_came_before_the_daemon_left_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    monkeypatch.setattr(server_module, "DRAIN_TIMEOUT_S", 600.0)  # this test would not end
    path = tmp_path / "daemon" / "daemon.sock"
    runner = await serve(Server(Service(), lambda: HEALTH, lambda: None).application(), bind(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /v1/health HTTP/1.1\r\nHost: moat\r\n\r\n")
        for _ in range(turns):
            await asyncio.sleep(0)

        await close(runner, path)

        assert client.recv(12) == b"HTTP/1.1 200"
    assert not path.exists()
