"""Ports of runs under names and at ports of loopback: which there are, and the port where the names are served.

    put ─▶ run live? names fit? ─▶ port bound, at the first route ─▶ table ─▶ served (`moat.routing`) ─▶ run over: gone
                                └─▶ each port's own, on loopback ──────┘

The port is bound when it is first needed: an installation that routes nothing takes no port, and one that is taken
costs the registration that needs it, and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import replace

from moat.api.errors import MoatError, RunNotFound, UsageError
from moat.api.runs import ExchangeRecord, RunInfo
from moat.daemon.extras import RoutedPort
from moat.daemon.protocol import RouteRequest, RouteResponse
from moat.routing.names import url_of
from moat.routing.published import Published
from moat.routing.server import Certify, Connect, Routing
from moat.routing.table import Route, Table, check

BACKLOG = 128
AGAIN_S, AGAIN_EVERY_S = 30.0, 0.25  # for ports that the daemon before this one may still hold

log = logging.getLogger(__name__)


class Routes:
    """The routes of one daemon. wanted_port: as it is set now. is_live: whether a run id is a live run's."""

    watches_exchanges = False

    def __init__(
        self, table: Table, wanted_port: Callable[[], int], is_live: Callable[[str], bool], connect: Connect,
        certify: Certify,
    ) -> None:  # fmt: skip
        self._table = table
        self._wanted_port = wanted_port
        self._is_live = is_live
        self._connect = connect
        self._certify = certify
        self._published = Published(connect)
        self._unpublished: list[Route] = []  # of the daemon before, whose ports are not there yet
        self._listeners: list[socket.socket] = []
        self._bound = asyncio.Event()
        self.port = 0

    def restore(self, live: Container[str]) -> None:
        """Serve again what the daemon before this one did."""
        self._table.load(live)
        if len(self._table):
            try:
                self._bind()
            except MoatError as failure:
                log.warning("nothing is routed", extra={"problem": failure.problem})
        self._unpublished = [route for route in self._table if not self._is_published(route)]

    def put(self, agent: str, request: RouteRequest) -> RouteResponse:
        """Route ports of a live run. Raises UsageError, PlanConflict for a name that is taken, RunNotFound."""
        route = route_of(agent, request.run_id, request.endpoints)
        if not self._is_live(request.run_id):
            raise RunNotFound(f"{request.run_id} is no live run", hint="run: moat list")
        self._table.admit(route)
        self._bind()
        published = self._published.put(route)
        self._table.put(replace(route, published=published))
        urls = {name: url_of(agent, name, self.port) for name in route.endpoints}
        return RouteResponse(agent, self.port, urls, published)

    def remove(self, agent: str) -> None:
        """Route an agent's ports no more; one that is not routed is fine."""
        self._published.remove(agent)
        self._table.remove(agent)

    async def forever(self) -> None:
        """Serve as soon as there is something to serve, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._published.forever())
            group.create_task(self._publish_again())
            try:
                await self._bound.wait()
                await Routing(self._table, self.port, self._connect, self._certify).serve(self._listeners)
            finally:
                self.close()

    def close(self) -> None:
        """Listen nowhere any more."""
        for listener in self._listeners:
            listener.close()
        self._published.close()

    def run_started(self, run: RunInfo) -> None:
        """Take a run whose command may start now: what listens in it comes later."""

    def run_stopped(self, run: RunInfo, exit_code: int) -> None:
        """Forget the routes of a run that is over."""
        del exit_code
        for route in self._table:
            if route.run_id == run.run_id:
                self._published.remove(route.agent)
        self._table.remove_run(run.run_id)

    def exchange_done(self, run_id: str, exchange: ExchangeRecord) -> None:
        """Take an exchange, which has nothing to do with routing."""

    async def _publish_again(self) -> None:
        """Have the ports of the daemon before again, as soon as nobody else has them; in the end do without."""
        end = time.monotonic() + AGAIN_S
        while self._unpublished and time.monotonic() < end:
            await asyncio.sleep(AGAIN_EVERY_S)
            same = [route for route in self._unpublished if self._table.get(route.agent) == route]
            self._unpublished = [route for route in same if not self._is_published(route)]
        for route in self._unpublished:
            log.warning("ports are not published any more", extra={"run_id": route.run_id})
            self._table.put(replace(route, published={}))

    def _is_published(self, route: Route) -> bool:
        wanted = {name: port for name, port in route.endpoints.items() if name in route.published}
        try:
            self._published.put(replace(route, endpoints=wanted))
        except UsageError as failure:
            log.info("ports cannot be published yet", extra={"run_id": route.run_id, "problem": failure.problem})
            return False
        return True

    def _bind(self) -> None:
        if not self._listeners:
            self.port = self._wanted_port()
            self._listeners = listen_on_loopback(self.port)
            self._bound.set()


def route_of(agent: str, run_id: str, endpoints: Iterable[RoutedPort]) -> Route:
    """Return the route that a request spells. Raises UsageError."""
    ports: dict[str, int] = {}
    published: dict[str, int] = {}
    for each in endpoints:
        if ports.setdefault(each.name, each.port) != each.port:
            raise UsageError(f"the endpoint {each.name} has two ports", hint="name each differently")
        if each.publish:
            published[each.name] = each.publish
    route = Route(agent, run_id, ports, published)
    check(route)
    return route


def listen_on_loopback(port: int) -> list[socket.socket]:
    """Return listeners on both loopback addresses. Raises UsageError when the port is taken."""
    listeners: list[socket.socket] = []
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                listeners.append(_listener(family, address, port))
            except OSError as failure:
                if failure.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or family is socket.AF_INET:
                    raise
    except OSError as failure:
        for listener in listeners:
            listener.close()
        problem = f"port {port}, where runs' ports are routed, cannot be had: {failure.strerror}"
        raise UsageError(problem, hint="set another in config.yaml, as in routing: {port: 8081}") from None
    return listeners


def _listener(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last daemon may still fade
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
