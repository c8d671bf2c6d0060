"""Ports of runs at ports of loopback: what connects there is passed into the run as it comes, whatever it speaks.

    127.0.0.1:13000 ─▶ accept ─▶ connect(run, 3000) ─▶ bytes both ways, until both sides have ended
                                        └─ nothing listens inside: closed

No name is asked for, so there is none that could be foreign: only loopback is listened on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from moat.api.errors import UsageError
from moat.routing.relay import CHUNK, Peer, streams_of
from moat.routing.server import PAUSE_S, Connect
from moat.routing.table import Route

ADDRESS = "127.0.0.1"
BACKLOG = 128
MAX_CONNECTIONS = 512  # of all; more are closed at once
MAX_PORT_CONNECTIONS = 128  # of one port; more wait in its backlog

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Site:
    """One published port. number: on loopback. port: inside the run. task: who serves it, once somebody does."""

    route: Route
    name: str
    port: int
    number: int
    listener: socket.socket
    task: asyncio.Task[None] | None = None
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_PORT_CONNECTIONS))


class Published:
    """All published ports of one daemon. connect: into a run."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._sites: dict[int, Site] = {}
        self._changed = asyncio.Event()
        self._count = 0

    def put(self, route: Route) -> dict[str, int]:
        """Publish a route's ports, each where route.published says, and return where they are.

        What the same run has published already stays where it is, unless it is wanted elsewhere; what is not in route
        any more is closed. Raises UsageError for a port that cannot be had; then nothing has changed.
        """
        made: list[Site] = []
        chosen: dict[str, Site] = {}
        try:
            for name in sorted(route.endpoints, key=lambda name: name not in route.published):
                site = self._kept(route, name, chosen)
                if site is None:
                    site = self._bound(route, name)
                    made.append(site)
                chosen[name] = site
        except UsageError:
            for site in made:
                site.listener.close()
            raise
        for name, site in chosen.items():
            site.route, site.name, site.port = route, name, route.endpoints[name]
            self._sites[site.number] = site
        kept = {site.number for site in chosen.values()}
        self._close(site for site in self._of(route.agent) if site.number not in kept)
        self._changed.set()
        return {name: chosen[name].number for name in route.endpoints}

    def remove(self, agent: str) -> None:
        """Close an agent's ports, with the connections that came there."""
        self._close(iter(self._of(agent)))

    async def forever(self) -> None:
        """Serve what is published, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    for site in self._sites.values():
                        if site.task is None:
                            site.task = group.create_task(self._serve(site), name=f"published {site.number}")
                            site.task.add_done_callback(partial(_closed, site.listener))
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Listen nowhere any more."""
        for site in self._sites.values():
            site.listener.close()

    def _of(self, agent: str) -> list[Site]:
        return [site for site in self._sites.values() if site.route.agent == agent]

    def _kept(self, route: Route, name: str, chosen: Mapping[str, Site]) -> Site | None:
        """Return the site that a port has already, or takes over from another of the same run. Raises UsageError."""
        number, taken = route.published.get(name, 0), {site.number for site in chosen.values()}
        if not number:
            return next(
                (site for site in self._of(route.agent) if site.name == name and site.number not in taken), None
            )
        site = self._sites.get(number)
        whose = route.agent if number in taken else site.route.agent if site is not None else ""
        if number in taken or whose not in ("", route.agent):
            raise UsageError(f"port {number} is published for {whose} already", hint=_elsewhere(name))
        return site

    def _bound(self, route: Route, name: str) -> Site:
        number = route.published.get(name, 0)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last daemon may still fade
            sock.bind((ADDRESS, number))
            sock.listen(BACKLOG)
        except OSError as failure:
            sock.close()
            problem = f"port {number}, where {name} is to be published, cannot be had: {failure.strerror}"
            raise UsageError(problem, hint=_elsewhere(name)) from None
        sock.setblocking(False)
        return Site(route, name, route.endpoints[name], int(sock.getsockname()[1]), sock)

    def _close(self, sites: Iterator[Site]) -> None:
        for site in sites:
            del self._sites[site.number]
            if site.task is None:
                site.listener.close()
            else:
                site.task.cancel()  # its end closes the listener, when nobody waits for it any more

    async def _serve(self, site: Site) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await site.room.acquire()
                sock = await _accepted(site)
                task = group.create_task(self._pass_on(site, sock))
                task.add_done_callback(partial(_closed, sock))  # a task that is cancelled before its first step, too
                task.add_done_callback(lambda _: site.room.release())

    async def _pass_on(self, site: Site, sock: socket.socket) -> None:
        try:
            with self._counted() as is_room:
                if is_room:
                    await self._relay(site, sock)
        except OSError as failure:
            problem = {"port": site.number, "problem": str(failure)}
            log.info("a connection to a published port ended", extra=problem)
        except Exception:  # the top of a task: one connection's trouble must not end the daemon
            log.exception("a connection to a published port failed")

    async def _relay(self, site: Site, sock: socket.socket) -> None:
        inside = await self._connect(site.route.run_id, site.port)
        run = await streams_of(inside, CHUNK)
        try:
            client = await streams_of(sock, CHUNK)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_copied(client, run))
                    group.create_task(_copied(run, client))
            finally:
                client.abort()
        finally:
            run.abort()

    @contextmanager
    def _counted(self) -> Iterator[bool]:
        self._count += 1
        try:
            yield self._count <= MAX_CONNECTIONS
        finally:
            self._count -= 1


def _closed(sock: socket.socket, _: asyncio.Task[None]) -> None:
    sock.close()


async def _accepted(site: Site) -> socket.socket:
    while True:
        try:
            return (await asyncio.get_running_loop().sock_accept(site.listener))[0]
        except OSError as failure:  # out of descriptors: others may close some
            log.warning("a connection could not be accepted", extra={"problem": str(failure)})
            await asyncio.sleep(PAUSE_S)


async def _copied(source: Peer, target: Peer) -> None:
    """Pass on what one side says, and that it has said everything; when one breaks off, so does the other."""
    try:
        while data := await source.reader.read(CHUNK):
            await target.send(data)
        await target.finish()
    except OSError:
        source.writer.transport.abort()
        target.writer.transport.abort()


def _elsewhere(name: str) -> str:
    return f"choose another for {name}, or none to have one that is free"
