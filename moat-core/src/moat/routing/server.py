"""Serves names below localhost: accepts, finds out who is meant, and passes one request into the run's port.

    accept ─▶ first byte: TLS (certificate by SNI) or clear ─▶ head ─▶ named ─▶ index │ table ─▶ connect ─▶ relay
                                                                400 foreign   404 unknown   502 nothing listens

Everything that decides is in `names`, `heads` and `table`. How a port of a run is reached, and who makes certificates,
are callables.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from moat.routing import heads, index
from moat.routing.names import ForeignHost, Named, named
from moat.routing.relay import Peer, relay, streams_of
from moat.routing.table import Route, Table

HEAD_S = 30.0
HANDSHAKE_S = 10.0
MAX_CONNECTIONS = 1024  # of all; whose name is not known yet has HANDSHAKE_S and HEAD_S
MAX_AGENT_CONNECTIONS = 64  # of one agent: a program that never answers takes no connections from other agents
PAUSE_S = 0.2  # after accept failed: descriptors may come back
_TLS_HANDSHAKE = b"\x16"

Connect = Callable[[str, int], Awaitable[socket.socket]]  # run id, port; raises ConnectionError
Certify = Callable[[str], ssl.SSLContext]  # a server's context for a name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Routing:
    """The server of one port. connect: into a run. certify: for a name of ours."""

    table: Table
    port: int
    connect: Connect
    certify: Certify
    busy: Counter[str] = field(default_factory=Counter)  # connections of each agent

    async def serve(self, listeners: Sequence[socket.socket]) -> None:
        """Serve listeners until cancelled; each connection has a task of its own."""
        room = asyncio.Semaphore(MAX_CONNECTIONS)
        async with asyncio.TaskGroup() as group:
            for listener in listeners:
                listener.setblocking(False)
                group.create_task(self._accept(listener, group, room))

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup, room: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await room.acquire()
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as failure:
                room.release()
                log.warning("a connection could not be accepted", extra={"problem": str(failure)})
                await asyncio.sleep(PAUSE_S)
                continue
            task = group.create_task(self._serve(sock))
            task.add_done_callback(lambda _: room.release())

    async def _serve(self, sock: socket.socket) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                first = await _first_byte(sock)
                client, host = await self._welcomed(sock, is_tls=first == _TLS_HANDSHAKE)
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        try:
            await self._answer(client, host)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side went away
        except Exception:  # the top of a task: one connection's trouble must not end the daemon
            log.exception("a routed connection failed")
        finally:
            client.abort()

    async def _welcomed(self, sock: socket.socket, *, is_tls: bool) -> tuple[Peer, str | None]:
        """Return the client's streams, and for TLS the name that it asked a certificate for."""
        if not is_tls:
            return await streams_of(sock, heads.MAX_HEAD_BYTES), None
        asked: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = self._chooser(asked)
        client = await streams_of(sock, heads.MAX_HEAD_BYTES, context)
        return client, asked[0]

    def _chooser(self, asked: list[str]) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]:
        def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            try:
                wanted = named(name or "localhost", self.port)
            except ForeignHost:
                return int(ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
            if wanted.agent and self.table.get(wanted.agent) is None:
                return int(ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
            asked.append(wanted.host)
            tls.context = self.certify(wanted.host)
            return None

        return choose

    async def _answer(self, client: Peer, host: str | None) -> None:
        """Answer one request. host: what the certificate was for; None without TLS."""
        scheme = "http" if host is None else "https"
        try:
            async with asyncio.timeout(HEAD_S):
                asked = heads.read_request(await client.reader.readuntil(b"\r\n\r\n"))
            wanted = named(asked.host, self.port)
        except (heads.BadHead, ForeignHost, asyncio.LimitOverrunError) as refused:
            text = str(refused) if not isinstance(refused, asyncio.LimitOverrunError) else "the head is too long"
            return await self._tell(client, 400, text)
        except TimeoutError:
            return None
        if host is not None and wanted.host != host:
            return await self._tell(client, 421, "Host is not the name that the certificate is for")
        if wanted.endpoint:
            return await self._pass_on(client, asked, wanted, scheme)
        return await self._show_index(client, asked, wanted, scheme)

    async def _pass_on(self, client: Peer, asked: heads.Asked, wanted: Named, scheme: str) -> None:
        route = self.table.get(wanted.agent)
        port = route.endpoints.get(wanted.endpoint) if route is not None else None
        if route is None or port is None:
            return await self._tell(client, 404, f"nothing is routed at {wanted.host}", asked.method)
        if self.busy[route.agent] >= MAX_AGENT_CONNECTIONS:
            text = f"{route.agent} has {MAX_AGENT_CONNECTIONS} connections already"
            return await self._tell(client, 503, text, asked.method)
        with self._counted(route.agent):
            return await self._relay(client, route, port, asked, scheme)

    @contextlib.contextmanager
    def _counted(self, agent: str) -> Iterator[None]:
        self.busy[agent] += 1
        try:
            yield
        finally:
            self.busy[agent] -= 1
            if not self.busy[agent]:
                del self.busy[agent]

    async def _relay(self, client: Peer, route: Route, port: int, asked: heads.Asked, scheme: str) -> None:
        try:
            upstream = await streams_of(await self.connect(route.run_id, port), heads.MAX_HEAD_BYTES)
        except OSError as failure:
            text = f"the run does not answer at its port {port}: {failure}"
            return await self._tell(client, 502, text, asked.method)
        with _closing(upstream):
            return await relay(client, upstream, asked, scheme)

    async def _show_index(self, client: Peer, asked: heads.Asked, wanted: Named, scheme: str) -> None:
        routes: list[Route] = list(self.table)
        if wanted.agent:
            routes = [route for route in routes if route.agent == wanted.agent]
            if not routes:
                return await self._tell(client, 404, f"nothing is routed at {wanted.host}", asked.method)
        if asked.method not in ("GET", "HEAD"):
            return await self._tell(client, 405, "this is an index: GET it", asked.method)
        kind, render = ("text/html", index.as_html)
        if asked.wants("application/json") and not asked.wants("text/html"):
            kind, render = ("application/json", index.as_json)
        text = render(routes, self.port, scheme)
        return await client.send(heads.answer_of_ours(200, kind, text, asked.method))

    async def _tell(self, client: Peer, status: int, text: str, method: str = "GET") -> None:
        title = {400: "Not for this place", 404: "Nothing here", 502: "No answer", 503: "Too busy"}.get(
            status, "Refused"
        )
        page = index.problem(title, text, self.port)
        await client.send(heads.answer_of_ours(status, "text/html", page, method))


async def _first_byte(sock: socket.socket) -> bytes:
    """Return the first byte that a client sent, without taking it."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _settle, readable)
    try:
        await readable
    finally:
        loop.remove_reader(sock)
    return sock.recv(1, socket.MSG_PEEK)


def _settle(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


@contextlib.contextmanager
def _closing(peer: Peer) -> Iterator[None]:
    try:
        yield
    finally:
        peer.abort()
