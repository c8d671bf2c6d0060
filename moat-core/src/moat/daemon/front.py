"""What the management API calls: runs, with their routes. Each call is somebody else's; here they are put together."""

from __future__ import annotations

import contextlib
from typing import Protocol

from moat.api.errors import MoatError
from moat.api.runs import RunInfo
from moat.daemon.protocol import (
    RegisterRequest,
    RegisterResponse,
    RouteRequest,
    RouteResponse,
    SetupRequest,
    SetupResponse,
)
from moat.daemon.registry import Registry
from moat.daemon.routes import Routes, route_of
from moat.ids import checked_run_id
from moat.trace.store import RunStore


class Service(Protocol):
    """Who makes and ends runs: `Runs`."""

    async def setup(self, request: SetupRequest) -> SetupResponse: ...  # protocol.py says it
    async def register(self, request: RegisterRequest) -> RegisterResponse: ...  # protocol.py says it
    def tell_container(self, token: str, container_id: str) -> None: ...  # protocol.py says it
    async def end(self, token: str, exit_code: int | None) -> RunInfo: ...  # protocol.py says it
    def list(self) -> list[RunInfo]: ...  # protocol.py says it


class Front:
    """The service behind the API."""

    def __init__(self, runs: Service, registry: Registry, store: RunStore, routes: Routes) -> None:
        self._runs = runs
        self._registry = registry
        self._store = store
        self._routes = routes

    async def setup(self, request: SetupRequest) -> SetupResponse:
        """Return what grants and plugins put into a run; changes nothing."""
        return await self._runs.setup(request)

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """Make a run known, with its routes: both or neither; one that is live goes on. Raises what either raises."""
        if not request.endpoints:
            return await self._runs.register(request)
        route_of(request.name or "agent", request.run_id, request.endpoints)  # what cannot be routed is not begun
        response = await self._runs.register(request)
        entry = self._registry.get(response.run_id)
        try:
            agent = entry.info.name if entry is not None else request.name
            self._routes.put(agent, RouteRequest(response.run_id, request.endpoints))
        except MoatError:
            if not request.auth_token:
                with contextlib.suppress(MoatError):
                    await self._runs.end(response.auth_token, None)
            raise
        return response

    def tell_container(self, token: str, container_id: str) -> None:
        """Take the sandbox's id. Raises RunNotFound."""
        self._runs.tell_container(token, container_id)

    async def end(self, token: str, exit_code: int | None) -> RunInfo:
        """End a run and return what is known about it. Raises RunNotFound."""
        return await self._runs.end(token, exit_code)

    def list(self) -> list[RunInfo]:
        """Return the live runs."""
        return self._runs.list()

    def one(self, run_id: str) -> RunInfo:
        """Return one run, live or ended. Raises UsageError for what is no run id, RunNotFound."""
        entry = self._registry.get(checked_run_id(run_id))
        return entry.info if entry is not None else self._store.read(run_id)

    def route(self, agent: str, request: RouteRequest) -> RouteResponse:
        """Route ports of a live run under a name. Raises UsageError, PlanConflict, RunNotFound."""
        return self._routes.put(agent, request)

    def unroute(self, agent: str) -> None:
        """Route a name no more."""
        self._routes.remove(agent)
