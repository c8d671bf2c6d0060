"""Whose connections are whose, and how many each may have. Opens nothing, reads nothing.

    door ─▶ the run's room      token listener ─▶ the room "" ── its token ─▶ the run's room
                                                   │ few, for a moment

So no run takes connections from another: it fills its own room only, wherever it came from.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from moat.proxy.refusal import crowded
from moat.proxy.server.connection import Connection
from moat.proxy.server.dns import DatagramResolver
from moat.proxy.server.listener import Listener
from moat.proxy.server.names import Names
from moat.proxy.server.race import Target

MAX_CONNECTIONS = 2048  # per run: above 64 parallel installers, below what starves the other runs of descriptors
MAX_UNIDENTIFIED = 256  # of all who have not shown their token yet: a burst of clients, each for a round trip
SHARE = 4  # one run may fill a quarter of the descriptors; each connection may need one to its upstream too


@dataclass(slots=True)
class Room:
    """One run's sockets and connections; the one with run_id "" is for who has not shown a token yet.

    limit: of connections. addresses: where its sockets listen, those that can be reached from here.
    """

    run_id: str
    names: Names
    limit: int
    listeners: list[Listener] = field(default_factory=list)
    resolvers: list[DatagramResolver] = field(default_factory=list)
    connections: dict[asyncio.Task[None], Connection] = field(default_factory=dict)
    kept_in: set[str] = field(default_factory=set)
    addresses: list[Target] = field(default_factory=list)

    @property
    def is_crowded(self) -> bool:
        """Whether half of it is taken."""
        return 2 * len(self.connections) >= self.limit

    def close(self) -> None:
        """Close the sockets and cancel the connections."""
        for listener in self.listeners:
            listener.close()
        for resolver in self.resolvers:
            resolver.close()
        for task in list(self.connections):
            task.cancel()

    def take(self, task: asyncio.Task[None], connection: Connection) -> None:
        """Count a connection here; when that was the last that fits, further ones wait in the backlog."""
        self.connections[task] = connection
        if len(self.connections) >= self.limit:
            for listener in self.listeners:
                listener.pause()

    def give(self, task: asyncio.Task[None]) -> None:
        """Count a connection here no more, if it was."""
        if self.connections.pop(task, None) is not None and len(self.connections) == self.limit - 1:
            for listener in self.listeners:
                listener.resume()


class Seats:
    """Which room each connection counts in."""

    def __init__(self, rooms: Mapping[str, Room]) -> None:
        self._rooms = rooms
        self._rooms_of: dict[asyncio.Task[None], Room] = {}

    def take(self, task: asyncio.Task[None], connection: Connection, room: Room) -> None:
        """Count a new connection in room, until its task ends or its token says another one."""
        self._rooms_of[task] = room
        room.take(task, connection)
        connection.on_identified = lambda run_id: self._move(task, connection, run_id)
        task.add_done_callback(partial(self._leave, connection))

    def _leave(self, connection: Connection, task: asyncio.Task[None]) -> None:
        connection.on_identified = _nobody  # a cycle, which only the collector would end
        connection.tunnel.came()
        self._rooms_of.pop(task).give(task)

    def _move(self, task: asyncio.Task[None], connection: Connection, run_id: str) -> None:
        """Count a connection in the room of the run whose token it showed. Raises Refusal when that is full."""
        room = self._rooms[run_id]
        if self._rooms_of[task] is room:
            return
        if len(room.connections) >= room.limit:
            raise crowded(room.limit)
        self._rooms_of[task].give(task)
        self._rooms_of[task] = room
        room.take(task, connection)


def limit_of(run_id: str) -> int:
    """Return how many connections a room may have, with the descriptors that this process has."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS if run_id else MAX_UNIDENTIFIED
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // SHARE))


def _nobody(run_id: str) -> None:
    """Take that somebody was identified where nobody counts."""
