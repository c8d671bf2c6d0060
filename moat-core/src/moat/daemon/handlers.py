"""More handlers of the management API: one run, routes, metrics, and the stream of events. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from moat.api.errors import DaemonError
from moat.api.runs import RunInfo
from moat.daemon.events import Events
from moat.daemon.metrics import CONTENT_TYPE
from moat.daemon.protocol import RouteRequest, RouteResponse
from moat.daemon.server import body_of, json_of

STILL_HERE_S = 15.0  # between comments on a silent stream, so that a dead listener is found out
WRITE_TIMEOUT_S = 30.0


class Service(Protocol):
    """What the handlers call; `Front` in the daemon."""

    def one(self, run_id: str) -> RunInfo: ...  # protocol.py says it
    def route(self, agent: str, request: RouteRequest) -> RouteResponse: ...  # protocol.py says it
    def unroute(self, agent: str) -> None: ...  # protocol.py says it


class Handlers:
    """The handlers. events: whom a stream listens to. metrics: what operators count, as text."""

    def __init__(self, service: Service, events: Events, metrics: Callable[[], str] = str) -> None:
        self._service = service
        self._events = events
        self._ask_metrics = metrics

    def add_to(self, app: web.Application) -> None:
        """Add them to the API."""
        app.router.add_get("/v1/runs/{id}", self._one)
        app.router.add_post("/v1/routes/{agent}", self._route)
        app.router.add_delete("/v1/routes/{agent}", self._unroute)
        app.router.add_get("/v1/events", self._stream)
        app.router.add_get("/v1/metrics", self._metrics)

    async def _one(self, request: web.Request) -> web.Response:
        return json_of(self._service.one(request.match_info["id"]))

    async def _route(self, request: web.Request) -> web.Response:
        body = await body_of(request, RouteRequest)
        return json_of(self._service.route(request.match_info["agent"], body))

    async def _unroute(self, request: web.Request) -> web.Response:
        self._service.unroute(request.match_info["agent"])
        return web.Response(status=204)

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        return web.Response(body=self._ask_metrics().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        with self._events.listening(request.query.get("run", "")) as listener:
            if listener is None:
                raise DaemonError("too many listeners", hint="end another: moat proxy logs -f, dashboards")
            headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            await response.write(b": listening\n\n")
            is_over = False
            while not is_over:
                event = await listener.next(STILL_HERE_S)
                is_over = event is not None and event.is_last
                if not await _written(response, event.render() if event is not None else b": still here\n\n"):
                    _abort(request)
                    break
            return response


async def _written(response: web.StreamResponse, data: bytes) -> bool:
    """Write data; return whether the listener took it, now or in a while."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(data)
    except (TimeoutError, ConnectionError):
        return False
    return True


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
