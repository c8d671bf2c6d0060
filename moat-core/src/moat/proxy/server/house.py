"""Everything the worker serves: the runs, their sockets and connections. What `worker` does with each message.

Configure ─▶ leaves, pool        SetRun ─▶ admission, names        Listen ─▶ listener ─▶ one task a connection
Drop ─▶ listeners closed, connections cancelled, kept upstream connections closed, run forgotten
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace

from moat.api.endpoints import UnixPath
from moat.api.http import DEFAULT_PORTS, Authority
from moat.api.runs import RunContext
from moat.net.policy import look_up_objection
from moat.proxy.admit import Admission, LiveRun
from moat.proxy.budget import FailureBudget
from moat.proxy.ca import load
from moat.proxy.entering import Entered, Spends
from moat.proxy.forwarded import lines_of, packed
from moat.proxy.guessed import Guessed
from moat.proxy.limits import Limits
from moat.proxy.messages import (
    Answered,
    Ask,
    AskSignature,
    Captured,
    Configure,
    Kept,
    ListenName,
    Signature,
    Uses,
)
from moat.proxy.record import Emit, EmitForwarded, Trail, new_numbers, record_of
from moat.proxy.refusal import denied
from moat.proxy.server.asks import Asks
from moat.proxy.server.captures import Captures
from moat.proxy.server.connection import Connection, Services
from moat.proxy.server.dns import DatagramResolver, serve_stream
from moat.proxy.server.endpoints import serve_endpoint, serve_port
from moat.proxy.server.guesses import Challenge, Guesses
from moat.proxy.server.h2_client import H2Services
from moat.proxy.server.h2_upstream import Upstreams
from moat.proxy.server.hairpin import in_our_namespace, leads_to
from moat.proxy.server.leaves import Leaves
from moat.proxy.server.listener import Listener
from moat.proxy.server.names import Names
from moat.proxy.server.pool import Pool
from moat.proxy.server.race import Target
from moat.proxy.server.relay import Common, Ways
from moat.proxy.server.rooms import Room, Seats, limit_of
from moat.proxy.server.spending import Spending
from moat.proxy.server.stream import PlainStream, within
from moat.proxy.server.transparent import serve_transparent
from moat.proxy.server.upstream import DialSettings
from moat.proxy.server.watch import Watch

DRAIN_S = 3.0  # less than the daemon waits for a worker's end; all other requests wait meanwhile
MAX_KEPT_IN = 256  # denied names recorded per run: enough for people, too few to fill a disk

log = logging.getLogger(__name__)


class House:
    """The worker's state. on_named: (run_id, host, address) of every address given out. limits: shorter in tests.

    emit, emit_forwarded: who is told of finished exchanges, as records and as times; the second is the first if left
    out. ask: takes what a run needs of the daemon there; what comes back is for answered. spend: takes what is to be
    entered into the audit, gathered; if left out it is ask's, use by use.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        emit: Emit,
        on_named: Callable[[str, str, str], None],
        limits: Limits | None = None,
        failures: FailureBudget | None = None,
        ask: Callable[[Ask | AskSignature | Captured | Spends | Uses | Guessed], None] = lambda _: None,
        emit_forwarded: EmitForwarded | None = None,
        spend: Callable[[Spends], None] | None = None,
    ) -> None:
        self._group = group
        self._emit = emit
        self._emit_forwarded = emit_forwarded or (
            lambda _, line, *times: emit(record_of(lines_of([line], new_numbers(), packed(*times))))
        )
        self._on_named = on_named
        self._limits = limits or Limits()
        self._failures = failures or FailureBudget()
        self._admission = Admission(self._limits.held_bytes)
        self._asks = Asks(ask)
        self._captures = Captures(ask, group)
        self._spending = Spending(spend, ask) if spend is not None else Spending(ask, ask, gather_s=0)
        self._guesses = Guesses(ask)
        self._services: Services | None = None
        self._rooms: dict[str, Room] = {}
        self._seats = Seats(self._rooms)
        self._watch = Watch()
        self._ways = Ways()

    def configure(self, message: Configure) -> None:
        """Take the installation's CA and upstream settings; connections that are open keep the old ones."""
        leaves = Leaves(load(message.ca_certificate, message.ca_key))
        settings = DialSettings.of(message, self._is_ours)
        pool = Pool(settings)
        if self._services is not None:
            self._services.close()
        h2 = H2Services(Upstreams(self._group, pool), self._asks, self._captures)
        relaying = Common(pool, self._emit_forwarded, self._watch, self._ways)
        limits = replace(
            self._limits,
            first_byte_s=message.first_byte_s or self._limits.first_byte_s,
            upload_idle_s=message.upload_idle_s or self._limits.upload_idle_s,
        )
        shared = (self._emit, relaying, self._spending, limits, self._failures)
        self._services = Services(self._admission, leaves, pool, h2, *shared)

    def put(self, context: RunContext, names: Mapping[str, str]) -> None:
        """Add a run or replace it whole; its names are taken at its first coming only.

        Ends what is under way and has no leave any more; everything else is judged at its next request.
        """
        self._admission.put(context)
        if context.run_id not in self._rooms:
            self._rooms[context.run_id] = self._room(context.run_id, names)
        if (run := self._admission.by_id(context.run_id)) is not None:
            self._end_outlived(run)

    def listen(self, run_id: str, name: ListenName, sock: socket.socket) -> None:
        """Serve a socket. Takes it over. Raises ValueError when its run or the settings are not known."""
        if self._services is None or (run_id and run_id not in self._rooms):
            sock.close()
            raise ValueError("a socket came before its run or the settings")
        room = self._rooms.setdefault(run_id, self._room(run_id, {}))
        if sock.family == socket.AF_INET and in_our_namespace(sock):
            room.addresses.append(sock.getsockname()[:2])
        if name == "dns-udp":
            room.resolvers.append(DatagramResolver(sock, lambda host: self._address(room, host)))
        else:
            room.listeners.append(Listener(sock, lambda accepted: self._welcome(room, name, accepted)))

    def answered(self, message: Answered | Signature | Kept | Entered) -> None:
        """Take the daemon's answer to a question, or its word about captured tokens or about the audit."""
        if isinstance(message, Entered):
            self._spending.entered(message)
        elif isinstance(message, Kept):
            self._captures.kept(message)
        else:
            self._asks.take(message)

    def drop(self, run_id: str) -> None:
        """Forget a run: sockets, connections, kept upstream connections."""
        self._admission.drop(run_id)
        room = self._rooms.pop(run_id, None)
        if room is not None:
            room.close()
        self._spending.flush()  # the daemon waits for what was counted: nothing of a run is entered after its end
        if self._services is not None:
            self._services.pool.drop_run(run_id)
            self._ways.drop_run(run_id)
            self._services.h2.upstreams.drop_run(run_id)

    async def drain(self, limit_s: float = DRAIN_S) -> None:
        """Take no more connections, which wait for the next worker, and let exchanges under way end, for limit_s."""
        leaving: list[asyncio.Task[None]] = []
        for room in self._rooms.values():
            for listener in room.listeners:
                listener.close()
            leaving += room.connections
            for task, connection in list(room.connections.items()):
                connection.leave(task)
        if leaving:
            await asyncio.wait(leaving, timeout=limit_s)

    def close(self) -> None:
        """Close everything."""
        self._captures.close()
        self._spending.flush()
        for challenge in [each.challenge for room in self._rooms.values() for each in room.connections.values()]:
            challenge.drop()
        self._guesses.flush()
        for room in self._rooms.values():
            room.close()
        self._watch.close()
        if self._services is not None:
            self._services.close()
            self._services.h2.upstreams.abort()

    def _end_outlived(self, run: LiveRun) -> None:
        """Cancel what is open for run and has no leave any more."""
        for task, connection in list(self._rooms[run.context.run_id].connections.items()):
            connection.end_outlived(run, task)

    def _is_ours(self, target: Target) -> bool:
        """Whether target is one of the listeners here: dialling it would lead a request round and round."""
        return any(leads_to(target, address) for room in self._rooms.values() for address in room.addresses)

    def _room(self, run_id: str, names: Mapping[str, str]) -> Room:
        given = Names(names, lambda host, address: self._on_named(run_id, host, address))
        return Room(run_id, given, limit_of(run_id))

    def _address(self, room: Room, host: str) -> str | None:
        """Return what the run's resolver answers. A host that the policy keeps in is recorded, once."""
        run = self._admission.by_id(room.run_id)
        if run is None or not run.context.is_open:
            return None
        if run.is_nameable(host):
            return room.names.address(host)
        authority = Authority("https", host, DEFAULT_PORTS["https"])
        found = look_up_objection(run.objection(authority), host)
        if found is not None and host not in room.kept_in and len(room.kept_in) < MAX_KEPT_IN:
            room.kept_in.add(host)
            trail = Trail(self._emit, room.run_id, "dns", "DNS", protocol="dns")
            trail.aim(authority)
            trail.refused(denied(found))
        return None

    def _welcome(self, room: Room, name: ListenName, sock: socket.socket) -> None:
        if self._services is None:
            return sock.close()
        identified = "" if name == "token" else room.run_id  # reaching a listener for tokens proves nothing
        patience_s = self._limits.hurried_s if room.is_crowded else self._limits.unidentified_s
        challenge, until = Challenge(self._guesses), within(patience_s)
        connection = Connection(self._services, challenge, identified, only=room.run_id, identified_by=until)
        task = self._group.create_task(self._serve(room, name, connection, sock))
        self._seats.take(task, connection, room)

    async def _serve(self, room: Room, name: ListenName, connection: Connection, sock: socket.socket) -> None:
        """Serve one connection; whatever happens stays within it."""
        stream = PlainStream(sock.fileno())
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: stream, sock)
            await self._dispatch(room, name, connection, stream)
            await self._taken(connection, stream)
        except Exception:
            log.exception("a connection failed", extra={"run_id": room.run_id, "listener": name})
            stream.abort()
        except asyncio.CancelledError:
            stream.abort()
            sock.close()
            raise
        finally:
            connection.challenge.drop()

    async def _taken(self, connection: Connection, stream: PlainStream) -> None:
        """Let the client take the last of its answers. Its seat is its own meanwhile; a shared one is for a moment."""
        connection.is_asking = True
        if connection.is_known:
            return await stream.closed()
        try:
            async with asyncio.timeout(self._limits.linger_s):
                await stream.closed()
        except TimeoutError:
            return stream.abort()

    def _dispatch(
        self, room: Room, name: ListenName, connection: Connection, stream: PlainStream
    ) -> Coroutine[None, None, None]:
        """Return what serves a connection to a socket of this name."""
        match name:
            case "http":
                return serve_transparent(connection, stream, room.names, "http")
            case "tls":
                return serve_transparent(connection, stream, room.names, "https")
            case "dns-tcp":
                return serve_stream(stream, lambda host: self._address(room, host))
            case "proxy" | "token":
                return connection.serve_proxy(stream)
            case _:
                return _serve_place(connection, stream, room.names, name)


async def _serve_place(connection: Connection, stream: PlainStream, names: Names, name: ListenName) -> None:
    """Serve one connection to a socket that only endpoints have. name: `tcp:PORT`, or `unix:PATH`."""
    kind, _, rest = name.partition(":")
    if kind == "unix":
        await serve_endpoint(connection, stream, UnixPath(rest))
    else:
        await serve_port(connection, stream, names, int(rest))
