"""Which names lead to which ports of which run; kept in daemon/routes.json, so that a new daemon knows them too.

    {"version": 1, "routes": {agent: {"run_id", "endpoints": {name: port}, "published": {name: port of loopback}}}}

An agent's name belongs to one run at a time: a second one is refused, never redirected.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moat.api.errors import PlanConflict, UsageError
from moat.paths import UNWRITABLE, set_aside, write_private
from moat.routing.names import checked_label

VERSION = 1
MAX_AGENTS, MAX_ENDPOINTS = 1_000, 64

_BROKEN = (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, UsageError)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """One agent's ports. endpoints: name → port inside the run. published: name → port of loopback, of some or all."""

    agent: str
    run_id: str
    endpoints: Mapping[str, int] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)


class Table:
    """All routes. file: where they are kept; a disk that cannot be written costs only that."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._routes: dict[str, Route] = {}

    def __iter__(self) -> Iterator[Route]:
        return iter([self._routes[agent] for agent in sorted(self._routes)])

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, agent: str) -> Route | None:
        """Return an agent's route, or None."""
        return self._routes.get(agent)

    def put(self, route: Route) -> None:
        """Add a route, or replace the same run's. Raises as admit does."""
        self.admit(route)
        self._routes[route.agent] = route
        self._write()

    def admit(self, route: Route) -> None:
        """Raise UsageError for a route that is none, PlanConflict for a name that another run has."""
        check(route)
        known = self._routes.get(route.agent)
        if known is not None and known.run_id != route.run_id:
            hint = "give the run another name, or end the other one"
            raise PlanConflict(f"the name {route.agent} leads to {known.run_id} already", hint=hint)
        if known is None and len(self._routes) >= MAX_AGENTS:
            raise UsageError(f"more than {MAX_AGENTS} agents cannot be routed", hint="run: moat list")

    def remove(self, agent: str) -> None:
        """Forget an agent's route; one that is not there is fine."""
        if self._routes.pop(agent, None) is not None:
            self._write()

    def remove_run(self, run_id: str) -> None:
        """Forget the routes of a run that is over."""
        for route in self:
            if route.run_id == run_id:
                self.remove(route.agent)

    def load(self, live: Container[str]) -> None:
        """Read what the daemon before this one knew, as far as its runs are live. A broken file is set aside."""
        try:
            found = _parsed(self._file.read_bytes())
        except FileNotFoundError:
            return
        except _BROKEN as failure:
            log.warning("routes.json was set aside", extra={"path": str(_aside(self._file)), "problem": str(failure)})
            return
        self._routes = {route.agent: route for route in found if route.run_id in live}

    def _write(self) -> None:
        routes = {
            route.agent: {
                "run_id": route.run_id,
                "endpoints": dict(route.endpoints),
                "published": dict(route.published),
            }
            for route in self
        }
        try:
            write_private(self._file, json.dumps({"version": VERSION, "routes": routes}).encode())
        except UNWRITABLE as failure:
            log.warning("routes could not be written down", extra={"problem": str(failure)})


def read_routes(file: Path) -> list[Route]:
    """Return what a daemon wrote down, by agent, for who only looks; nothing where it cannot be read."""
    try:
        return sorted(_parsed(file.read_bytes()), key=lambda route: route.agent)
    except _BROKEN:
        return []


def check(route: Route) -> None:
    """Raise UsageError for names that cannot stand in an address, and for ports that are none."""
    checked_label(route.agent, "an agent")
    if not 1 <= len(route.endpoints) <= MAX_ENDPOINTS:
        raise UsageError(f"a route has 1 to {MAX_ENDPOINTS} endpoints", hint="name them as NAME: PORT")
    for name, port in route.endpoints.items():
        checked_label(name, "an endpoint")
        if type(port) is not int or not 0 < port < 65_536:
            raise UsageError(f"the endpoint {name} has no port that is one", hint="name it as NAME: PORT")
    for name, number in route.published.items():
        if name not in route.endpoints or type(number) is not int or not 0 < number < 65_536:
            raise UsageError(f"{name} is published at no port that is one", hint="choose one from 1 to 65535")


def _parsed(data: bytes) -> list[Route]:
    content = json.loads(data)
    if content["version"] != VERSION:
        raise ValueError("its format is not known here")
    found = [
        Route(agent, str(each["run_id"]), dict(each["endpoints"]), dict(each.get("published", {})))
        for agent, each in content["routes"].items()
    ]
    for route in found:
        check(route)
    return found


def _aside(file: Path) -> Path | None:
    try:
        return set_aside(file)
    except OSError:
        return None
