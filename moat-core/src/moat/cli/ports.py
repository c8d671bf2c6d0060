"""Where ports of live runs are reached on this machine, as the daemon wrote it down. Reads, and starts nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from moat.paths import Home
from moat.routing.names import url_of
from moat.routing.table import read_routes


@dataclass(frozen=True, slots=True)
class Address:
    """One port that can be reached. agent: whose name is in the address, the run's unless it was given another.

    port: inside. published: on 127.0.0.1, 0 where it could not be had again.
    """

    run_id: str
    agent: str
    name: str
    port: int
    url: str
    published: int = 0

    @property
    def loopback(self) -> str:
        """Where it is published, "" for nowhere."""
        return f"127.0.0.1:{self.published}" if self.published else ""

    def as_json(self) -> dict[str, object]:
        """Return it for a program."""
        return {"name": self.name, "port": self.port, "url": self.url, "published": self.loopback or None}


def addresses_of(home: Home, run_ids: Collection[str], routing_port: int) -> list[Address]:
    """Return the ports of runs, by agent and name. routing_port: as the daemon tells it; 0 where nothing is routed."""
    if not routing_port:
        return []
    return [
        Address(
            route.run_id, route.agent, name, number, url_of(route.agent, name, routing_port),
            route.published.get(name, 0),
        )
        for route in read_routes(home.daemon / "routes.json")
        if route.run_id in run_ids
        for name, number in sorted(route.endpoints.items())
    ]  # fmt: skip


def ports_as_json(found: Iterable[Address], run_id: str) -> list[dict[str, object]]:
    """Return one run's ports for a program."""
    return [each.as_json() for each in found if each.run_id == run_id]
