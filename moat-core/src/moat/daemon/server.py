"""The management API over the unix socket: checks what comes in, calls `Runs`, turns errors into JSON. Decides nothing.

peer's uid ─▶ body limit ─▶ pydantic (unknown fields ignored) ─▶ Runs ─▶ JSON
                                                                └─ MoatError ─▶ {"error": {"code", "message", "hint"}}
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from moat.api.errors import (
    DaemonError,
    DaemonLeaving,
    GrantMissing,
    MoatError,
    PlanConflict,
    RunNotFound,
    StoreError,
    UsageError,
)
from moat.api.runs import RunInfo
from moat.daemon.protocol import (
    EndRequest,
    Health,
    PatchRequest,
    RegisterRequest,
    RegisterResponse,
    SetupRequest,
    SetupResponse,
)
from moat.paths import private_folder, set_aside, socket_address

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 1024 * 1024  # names and hosts only: a thousand of each is far below
MAX_CONNECTIONS_WAITING = 128  # a burst of CLIs; more of them wait in connect
DRAIN_TIMEOUT_S = 5.0
_TURNS = 8  # of the loop, until whoever waits is listened to: accepted, made, its task begun; five and some
_CREDENTIALS = struct.Struct("iII")  # struct ucred: process, user, group (unix(7))
_STATUS: tuple[tuple[type[MoatError], int], ...] = (
    (UsageError, 400),
    (RunNotFound, 404),
    (GrantMissing, 409),
    (PlanConflict, 409),
    (StoreError, 503),
    (DaemonError, 503),
)

log = logging.getLogger(__name__)


class Service(Protocol):
    """What the handlers call; `Runs` in the daemon."""

    async def setup(self, request: SetupRequest) -> SetupResponse: ...  # protocol.py says it
    async def register(self, request: RegisterRequest) -> RegisterResponse: ...  # protocol.py says it
    def tell_container(self, token: str, container_id: str) -> None: ...  # protocol.py says it
    async def end(self, token: str, exit_code: int | None) -> RunInfo: ...  # protocol.py says it
    def list(self) -> list[RunInfo]: ...  # protocol.py says it


class Server:
    """The API's handlers. shutdown: called when a client asks the daemon to finish. more: adds further handlers."""

    def __init__(
        self, service: Service, health: Callable[[], Health], shutdown: Callable[[], None],
        more: Callable[[web.Application], object] = lambda _: None,
    ) -> None:  # fmt: skip
        self._more = more
        self._service = service
        self.health = health
        self._shutdown = shutdown
        self.is_leaving = False
        self.in_flight = 0  # requests that change something: the daemon does not leave under them

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_post("/v1/setup", self._setup)
        app.router.add_post("/v1/runs", self._register)
        app.router.add_get("/v1/runs", self._list)
        app.router.add_patch("/v1/runs/{token}", self._patch)
        app.router.add_delete("/v1/runs/{token}", self._end)
        app.router.add_get("/v1/health", self._health)
        app.router.add_post("/v1/shutdown", self._leave)
        self._more(app)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_peer(request)
            if self.is_leaving and request.method != "GET":
                raise DaemonLeaving("the daemon is finishing", hint="try again: the next command starts a new one")
            self.in_flight += request.method != "GET"
            try:
                return await handler(request)
            finally:
                self.in_flight -= request.method != "GET"
        except MoatError as refusal:
            return _refusal(_status(refusal), refusal)
        except web.HTTPException as refusal:  # aiohttp's own: no such path, method not allowed, body too large
            problem = f"{request.method} {_shown(request)}: {refusal.reason.lower()}"
            unknown = DaemonError(problem, hint="is the daemon older? run: moat proxy restart")
            response = _refusal(refusal.status, unknown)
            if "Allow" in refusal.headers:  # RFC 9110 §15.5.6 wants it of a 405
                response.headers["Allow"] = refusal.headers["Allow"]
            return response
        except Exception:  # the top of a request: the client gets an error, the log the traceback
            log.exception("a request failed", extra={"method": request.method})
            return _refusal(500, DaemonError("the daemon failed at this request", hint="see daemon.log in MOAT_HOME"))

    async def _setup(self, request: web.Request) -> web.Response:
        return json_of(await self._service.setup(await body_of(request, SetupRequest)))

    async def _register(self, request: web.Request) -> web.Response:
        return json_of(await self._service.register(await body_of(request, RegisterRequest)), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        del request
        return web.json_response([asdict(info) for info in self._service.list()])

    async def _patch(self, request: web.Request) -> web.Response:
        body = await body_of(request, PatchRequest)
        self._service.tell_container(request.match_info["token"], body.container_id)
        return web.Response(status=204)

    async def _end(self, request: web.Request) -> web.Response:
        body = await body_of(request, EndRequest) if request.can_read_body else EndRequest()
        return json_of(await self._service.end(request.match_info["token"], body.exit_code))

    async def _health(self, request: web.Request) -> web.Response:
        del request
        return json_of(self.health())

    async def _leave(self, request: web.Request) -> web.Response:
        del request
        self.is_leaving = True
        asyncio.get_running_loop().call_soon(self._shutdown)
        return web.json_response({}, status=202)


def bind(path: Path) -> socket.socket:
    """Return a bound socket with mode 0600 in a 0700 folder; a stale one is replaced: only the lock's holder calls."""
    private_folder(path.parent)
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(socket_address(path))
        path.chmod(0o600)  # before listen: nobody can have connected
    except BaseException:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    """Remove a stale socket; what else stands in its place is set aside."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        log.warning("a folder in the socket's place was set aside", extra={"path": str(set_aside(path))})


async def serve(app: web.Application, sock: socket.socket) -> web.AppRunner:
    """Serve app on sock and return the runner, for `close`."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_TIMEOUT_S)  # paths hold tokens: no access log
    await runner.setup()
    await web.SockSite(runner, sock, backlog=MAX_CONNECTIONS_WAITING).start()
    return runner


async def close(runner: web.AppRunner, path: Path) -> None:
    """Have nobody find the socket any more, answer what was asked, bounded, and close.

    Whoever had found it is taken in first, until there is a task that listens to them: closed earlier, asyncio keeps a
    connection without ever reading it (Server._attach), and aiohttp throws away what is asked on it, and waits for
    more (RequestHandler.close and data_received). They would get no answer and no end, for seconds.
    """
    _hide(path)
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    await runner.cleanup()


def _hide(path: Path) -> None:
    with contextlib.suppress(OSError):  # a home that turned read-only; the socket is closed in a moment
        path.unlink(missing_ok=True)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


async def body_of(request: web.Request, kind: type[T]) -> T:
    """Return a request's body as a dataclass of protocol.py. Raises UsageError, which never quotes a value."""
    data = await request.read()
    try:
        return cast("T", _adapter(cast("Any", kind)).validate_json(data))
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise UsageError(f"{where}: {first['msg'].lower()}", hint="see moat/daemon/protocol.py") from None


def _check_peer(request: web.Request) -> None:
    """Refuse another user, should one get past the folder's and the socket's modes."""
    sock = cast("socket.socket | None", request.get_extra_info("socket"))
    if sock is None:
        raise DaemonError("the connection is gone")
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid != os.geteuid():
        raise UsageError("this daemon belongs to another user", hint="use your own MOAT_HOME")


def _status(refusal: MoatError) -> int:
    return next((status for kind, status in _STATUS if isinstance(refusal, kind)), 400)


def _shown(request: web.Request) -> str:
    """Return the path as far as it holds no token."""
    return "/".join(request.path.split("/")[:3])


def json_of(value: Any, status: int = 200) -> web.Response:  # any dataclass of protocol.py
    """Return an answer that holds a value."""
    return web.json_response(asdict(value), status=status)


def _refusal(status: int, refusal: MoatError) -> web.Response:
    error = {"code": type(refusal).__name__, "message": refusal.problem, "hint": refusal.hint}
    return web.Response(status=status, text=json.dumps({"error": error}), content_type="application/json")
