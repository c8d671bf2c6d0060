"""A house under observation: clients and upstreams that send bytes in pieces of any size, and what becomes of them.

async with a_stage(answer) as stage:
    peer = await stage.client(API)        through CONNECT and TLS; without a host: in the clear
    await peer.send(data, cuts)
    await stage.quiet()                   nothing moves any more
    stage.seen                            everything that reached an upstream, by connection
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from core.proxy.server.house_of import Guest, a_house
from core.proxy.server.pairs import CA
from moat.api.rules import Match, Rule, SetHeader
from moat.api.runs import NetworkPolicy
from moat.proxy.limits import Limits
from moat.proxy.server.upstream import client_context
from support import strict
from support.upstream import MadeCa, make_test_ca
from support.wire import TURNS, Peer, listening, turns
from support.worker import RUN, a_run

SECRET = "s3cr3t-of-the-api"
API, OTHER, PLAIN = "api.example.com", "other.example.com", "www.example.com"
UPSTREAM_CA: MadeCa = make_test_ca()
CLIENT_TLS = client_context(CA.certificate_pem)

Answer = Callable[
    [str, strict.Message], Iterable[bytes]
]  # whose request it is; pieces, an empty one ends the connection


@dataclass(repr=False)
class Stage:
    """A house with one run, its upstreams, and everything that was noticed."""

    guest: Guest
    door: tuple[str, int]
    group: asyncio.TaskGroup
    answer: Answer
    raw: Callable[[Peer], None] | None = None
    servers: Sequence[asyncio.Server] = ()
    cuts: Sequence[int] = ()
    seen: list[Peer] = field(default_factory=list)
    order: list[tuple[Peer, int]] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    busy: set[asyncio.Task[None]] = field(default_factory=set)

    async def client(self, host: str = "", cuts: Sequence[int] = (), context: ssl.SSLContext = CLIENT_TLS) -> Peer:
        """Return a connection to the proxy; with host: through CONNECT, and TLS with it, cut on the wire."""
        _, peer = await asyncio.get_running_loop().create_connection(Peer, *self.door)
        self.peers.append(peer)
        if host:
            await peer.send(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode(), cuts)
            await self.until(lambda: b"\r\n\r\n" in peer.data)
            peer.data.clear()
            await peer.shake(context, host, cuts)
        return peer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until condition holds."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 # conditions are states of other objects, without an event
                await asyncio.sleep(0)

    async def quiet(self) -> None:
        """Wait until nothing moves any more."""
        known, still = self._state(), 0
        async with asyncio.timeout(30):
            while still < TURNS or self.busy:
                await asyncio.sleep(0)
                now = self._state()
                known, still = (known, still + 1) if now == known else (now, 0)

    async def hang_up(self) -> None:
        """Close every connection at its upstream."""
        for peer in self.seen:
            peer.close()
        await self.quiet()

    @property
    def is_serving(self) -> bool:
        """Whether the house still has a client."""
        return any(room.connections for room in self.guest.house._rooms.values())

    async def empty(self) -> None:
        """Close every connection, and wait until the house has noticed."""
        for peer in self.peers:
            peer.close()
        house = self.guest.house
        await self.until(lambda: not self.is_serving)
        assert house._services is not None
        house._services.pool.drop_run(RUN)
        house._services.h2.upstreams.drop_run(RUN)
        for peer in self.seen:
            peer.close()
        await self.until(lambda: all(peer.has_ended for peer in (*self.peers, *self.seen)))
        await turns()

    async def begin(self) -> None:
        """Close and forget everything: an example that failed may have left something."""
        await self.empty()
        self.complaints.clear()
        self.seen.clear()
        self.order.clear()
        self.peers.clear()
        self.guest.records.clear()

    def _state(self) -> tuple[int, ...]:
        ends = [*self.peers, *self.seen]
        counts = (len(peer.data) + peer.has_ended for peer in ends)
        return (len(ends), len(self.guest.records), *counts)

    def arrived(self, peer: Peer, name: str) -> None:
        """Answer every request that has come whole. name: whom the peer was asked for."""
        peer.name = name
        if self.raw is not None and name != PLAIN:
            return self.raw(peer)
        if peer.data[:1] == b"\x16" and not peer.is_secure:
            return peer.close()  # TLS where plain bytes are expected: the request was for https
        if peer.upgraded:
            fresh, peer.echoed = bytes(peer.data[peer.echoed :]), len(peer.data)
            return peer.write(fresh)
        read = strict.requests(bytes(peer.data), bare=True)
        known = sum(one is peer for one, _ in self.order)
        self.order += [(peer, number) for number in range(known, len(read.messages))]
        for message in read.whole[peer.answered :]:
            peer.answered += 1
            self.later(self._say(peer, list(self.answer(peer.name, message))))
        return None

    def later(self, work: Coroutine[None, None, None]) -> None:
        """Do work in a task; it is not quiet before that ends."""
        task = self.group.create_task(work)
        self.busy.add(task)
        task.add_done_callback(self.busy.discard)

    async def _say(self, peer: Peer, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            if not piece:
                return peer.close()
            if piece.startswith(b"HTTP/1.1 101"):
                peer.upgraded, peer.echoed = True, len(peer.data)
            await peer.send(piece, self.cuts, self.cuts if peer.is_secure else ())
        return None


@contextlib.asynccontextmanager
async def a_stage(
    answer: Answer,
    raw: Callable[[Peer], None] | None = None,
    *,
    rules: tuple[Rule, ...] = (),
    policy: NetworkPolicy | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Stage]:
    """Run a house with one run, strict unless policy says so, and upstreams: www in the clear, api and other in TLS.

    raw: what the one in TLS does with what came; it then says that it speaks HTTP/2. rules: instead of a_rule().
    """
    loop, names = asyncio.get_running_loop(), dict[int, str]()
    stage: Stage
    context = UPSTREAM_CA.server_context(API, OTHER)
    context.set_alpn_protocols(["h2" if raw else "http/1.1"])
    context.sni_callback = lambda tls, name, _: names.update({id(tls): name or ""})

    def accepted(secure: ssl.SSLContext | None) -> Peer:
        peer = Peer(lambda one: stage.arrived(one, names.get(id(one.tls), PLAIN)))
        stage.seen.append(peer)
        if secure is not None:
            peer.secure(secure, None)
        return peer

    async with contextlib.AsyncExitStack() as stack:
        servers = [await loop.create_server(partial(accepted, each), "127.0.0.1", 0) for each in (None, context)]
        for server in servers:
            stack.callback(server.close)
        at = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
        run = a_run(policy=policy or NetworkPolicy("strict", (PLAIN, OTHER)), rules=rules or (a_rule(),))
        pins = {PLAIN: at[0], API: at[1], OTHER: at[1]}
        guest = await stack.enter_async_context(a_house(run, roots=UPSTREAM_CA.pem, resolve=pins, limits=limits))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        stage = Stage(guest, guest.listen(RUN, "proxy"), group, answer, raw, servers)
        stack.enter_context(listening(stage.complaints))
        yield stage
        await stage.empty()


def a_rule() -> SetHeader:
    """Return the rule that spends SECRET, at the API only."""
    return SetHeader(Match(API), "Authorization", f"Bearer {SECRET}", "example")
