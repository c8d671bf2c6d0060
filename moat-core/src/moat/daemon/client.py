"""Talks to the daemon over its unix socket. Standard library only: every `moat` command starts with this module.

Synchronous, one connection a request, every wait bounded; events come for as long as somebody listens. What the daemon
refuses is raised as the same MoatError subclass that it was there, with its hint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from moat.api import errors
from moat.api.errors import DaemonError, DaemonUnreached, MoatError
from moat.api.runs import RunInfo
from moat.daemon.protocol import (
    EndRequest,
    Health,
    NoteRequest,
    PatchRequest,
    RegisterRequest,
    RegisterResponse,
    RouteRequest,
    RouteResponse,
    SetupRequest,
    SetupResponse,
    needed_capabilities,
)
from moat.daemon.told import Told, told
from moat.daemon.wire import NotHttp, connected, exchange
from moat.paths import Home
from moat.trace.values import decode

if TYPE_CHECKING:
    import http.client

T = TypeVar("T")

HEALTH_TIMEOUT_S = 3.0  # a daemon that needs longer to say that it is there is not well
TIMEOUT_S = 60.0  # a keyring may ask the user for a password meanwhile
EVENTS_TIMEOUT_S = 40.0  # a daemon with nothing to tell says so every 15 s
MAX_ANSWER_BYTES = 16 * 1024 * 1024
_RESTART = "run: moat proxy stop"


class DaemonClient:
    """The daemon of one installation; it need not run. Holds no connection."""

    def __init__(self, home: Home) -> None:
        self._socket = home.daemon / "daemon.sock"

    def health(self, timeout_s: float = HEALTH_TIMEOUT_S) -> Health:
        """Return the daemon's state. Raises DaemonError when it cannot be reached or does not answer in time."""
        return self._ask(Health, "GET", "/v1/health", timeout_s=timeout_s)

    def setup(self, request: SetupRequest) -> SetupResponse:
        """Return what grants and plugins put into a run; changes nothing. Raises DaemonError like register."""
        self._check_understood(request)
        return self._ask(SetupResponse, "POST", "/v1/setup", asdict(request))

    def register(self, request: RegisterRequest) -> RegisterResponse:
        """Make a run known. Raises GrantMissing, StoreLocked, PlanConflict, UsageError and the like.

        Raises DaemonError, and makes no run, when the daemon is too old for a part of request, and would leave it out.
        """
        self._check_understood(request)
        return self._ask(RegisterResponse, "POST", "/v1/runs", asdict(request))

    def tell_container(self, token: str, container_id: str) -> None:
        """Tell that the sandbox exists. Raises RunNotFound when the run has ended."""
        self._call("PATCH", f"/v1/runs/{token}", asdict(PatchRequest(container_id)))

    def end(self, token: str, exit_code: int | None) -> RunInfo:
        """End a run and return what is known about it; may be repeated."""
        return self._ask(RunInfo, "DELETE", f"/v1/runs/{token}", asdict(EndRequest(exit_code)))

    def runs(self) -> list[RunInfo]:
        """Return the live runs."""
        answer = self._call("GET", "/v1/runs")
        if not isinstance(answer, list):
            raise DaemonError("the daemon's answer is no list of runs", hint=_RESTART)
        return [_decoded(RunInfo, each) for each in answer]

    def run(self, run_id: str) -> RunInfo:
        """Return one run, live or ended. Raises RunNotFound."""
        return self._ask(RunInfo, "GET", f"/v1/runs/{quote(run_id, safe='')}")

    def route(self, agent: str, request: RouteRequest) -> RouteResponse:
        """Have ports of a live run reached under a name. Raises UsageError, PlanConflict, RunNotFound."""
        return self._ask(RouteResponse, "POST", f"/v1/routes/{quote(agent, safe='')}", asdict(request))

    def unroute(self, agent: str) -> None:
        """Have a name lead nowhere any more."""
        self._call("DELETE", f"/v1/routes/{quote(agent, safe='')}")

    def note(self, request: NoteRequest) -> None:
        """Have something entered into the audit, for good. Raises AuditUnwritable."""
        self._call("POST", "/v1/audit", asdict(request))

    def seal(self) -> None:
        """Have all that happened entered into the audit, and signed if there is a key."""
        self._call("POST", "/v1/audit/seal")

    @contextmanager
    def events(self, run_id: str = "") -> Iterator[Iterator[Told]]:
        """Listen, for as long as the block lasts, to what happens: to one run, or to all. The last event says why.

        Raises DaemonError when the daemon does not answer or has no events; so do the events, when they break off.
        """
        path = f"/v1/events?run={quote(run_id, safe='')}" if run_id else "/v1/events"
        import http.client

        connection = http.client.HTTPConnection("moat")  # the name is for the Host header only
        with closing(connection):
            with _translated(EVENTS_TIMEOUT_S, http.client.HTTPException):
                connection.sock = connected(self._socket, EVENTS_TIMEOUT_S)
                connection.request("GET", path)
                response = connection.getresponse()
                if response.status != 200:
                    _answer(response.status, response.read(MAX_ANSWER_BYTES))
            with closing(response):
                yield _told(response)

    def shutdown(self, timeout_s: float = TIMEOUT_S) -> None:
        """Ask the daemon to finish; it may live a moment longer."""
        self._call("POST", "/v1/shutdown", timeout_s=timeout_s)

    def _check_understood(self, request: SetupRequest | RegisterRequest) -> None:
        if not (needed := needed_capabilities(request)):
            return
        health = self.health()
        if unknown := [name for name in needed if name not in health.capabilities]:
            problem = f"the running daemon (version {health.version}) does not know: {', '.join(unknown)}"
            raise DaemonError(problem, hint="run: moat proxy restart")

    def _ask(
        self, kind: type[T], method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S
    ) -> T:
        return _decoded(kind, self._call(method, path, body, timeout_s))

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S
    ) -> object:
        payload = None if body is None else json.dumps(body).encode()
        with _translated(timeout_s), connected(self._socket, timeout_s) as sock:
            status, data = exchange(sock, method, path, payload, MAX_ANSWER_BYTES)
        return _answer(status, data)


@contextmanager
def _translated(timeout_s: float, strange: type[Exception] = NotHttp) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise DaemonError(f"the daemon did not answer within {timeout_s:g} s", hint=_RESTART) from None
    except OSError as failure:
        raise DaemonUnreached(f"the daemon cannot be reached: {failure}", hint="run: moat proxy start") from failure
    except strange as failure:
        raise DaemonError(f"the daemon does not speak HTTP: {failure}", hint=_RESTART) from failure


def _told(response: http.client.HTTPResponse) -> Iterator[Told]:
    import http.client

    with _translated(EVENTS_TIMEOUT_S, http.client.HTTPException):
        try:
            yield from told(response)
        except http.client.IncompleteRead:
            raise ConnectionResetError("the events broke off") from None
        except ValueError as failure:
            raise DaemonError(f"an event of the daemon's does not fit: {failure}", hint=_RESTART) from failure


def _answer(status: int, data: bytes) -> object:
    try:
        parsed: object = json.loads(data) if data else None
    except ValueError:
        raise DaemonError(f"the daemon answered HTTP {status} with something that is not JSON", hint=_RESTART) from None
    if status // 100 == 2:
        return parsed
    raise _error(status, parsed)


def _error(status: int, parsed: object) -> MoatError:
    details = parsed.get("error") if isinstance(parsed, dict) else None
    if not isinstance(details, dict):
        return DaemonError(f"the daemon answered HTTP {status}", hint=_RESTART)
    kind = getattr(errors, str(details.get("code")), DaemonError)
    if not (isinstance(kind, type) and issubclass(kind, MoatError)):
        kind = DaemonError  # a code from a newer daemon
    problem = str(details.get("message") or f"the daemon answered HTTP {status}")
    return kind(problem, hint=str(details.get("hint") or ""))


def _decoded(kind: type[T], data: object) -> T:
    try:
        return decode(kind, data)
    except ValueError as failure:
        raise DaemonError(f"the daemon's answer does not fit: {failure}", hint=_RESTART) from failure
