"""The upstream in HTTP/2, which answers by path, its frames and bytes cut anyhow; and what an HTTP/2 client got.

upstream = Upstream(ANSWERS)
async with a_stage(answer, upstream) as stage:      for whoever asks api or other
    upstream.stage = stage
    upstream.requests                                what came, by connection and stream
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from support.wire import Peer, cut

from hostile.fuzz.frames import Fields
from hostile.fuzz.stage import Stage


@dataclass(frozen=True)
class Said:
    """An answer. code: what its stream is reset with after its body, None where it ends.

    early: statuses of interim answers. leaves: whether the connection says goodbye with it.
    """

    status: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()
    early: tuple[str, ...] = ()
    code: int | None = None
    leaves: bool = False


@dataclass
class Asked:
    """A request as it came. name: whom the connection was made for."""

    name: str
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    is_whole: bool = False

    @property
    def told(self) -> object:
        """What must be the same however bytes are cut; of a body that broke off, how much came is chance."""
        return self.name, self.fields, self.body if self.is_whole else b"", self.trailers, self.is_whole

    def value(self, name: bytes) -> bytes:
        """Return the value of a field."""
        return dict(self.fields)[name]


class Upstream:
    """Answers every request on every connection. stage: set before anybody asks."""

    def __init__(self, answers: Mapping[bytes, Said]) -> None:
        self.stage: Stage | None = None
        self._answers = answers
        self._sides: dict[Peer, _Side] = {}

    def __call__(self, peer: Peer) -> None:
        """Take what came."""
        assert self.stage is not None
        if peer not in self._sides:
            self._sides[peer] = _Side(self.stage, peer, self._answers)
        self._sides[peer].take_in()

    def begin(self) -> None:
        """Forget everything."""
        self._sides.clear()

    @property
    def requests(self) -> list[Asked]:
        """Every request that came."""
        return [asked for side in self._sides.values() for asked in side.asked.values()]


class _Side:
    """One connection's HTTP/2, by the `h2` library alone."""

    def __init__(self, stage: Stage, peer: Peer, answers: Mapping[bytes, Said]) -> None:
        self.asked: dict[int, Asked] = {}
        self._stage = stage
        self._peer = peer
        self._answers = answers
        self._taken = 0
        self._is_sending = self._has_left = False
        self._h2 = H2Connection(
            H2Configuration(client_side=False, header_encoding=None, validate_outbound_headers=False)
        )
        self._h2.initiate_connection()

    def take_in(self) -> None:
        """Take what came of the peer's bytes."""
        fresh, self._taken = bytes(self._peer.data[self._taken :]), len(self._peer.data)
        if not fresh or self._has_left:
            return
        for event in self._h2.receive_data(fresh):
            self._take(event)
        if not self._is_sending:
            self._is_sending = True
            self._stage.later(self._send())

    async def _send(self) -> None:
        """Send all there is, one after the other: what is cut must not be mixed."""
        while data := self._h2.data_to_send():
            await self._peer.send(data, self._stage.cuts, self._stage.cuts)
        self._is_sending = False
        if self._has_left:
            self._peer.close()

    def _take(self, event: events.Event) -> None:
        match event:
            case events.RequestReceived():
                self.asked[event.stream_id] = Asked(self._peer.name, [(bytes(a), bytes(b)) for a, b in event.headers])
            case events.DataReceived():
                self.asked[event.stream_id].body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case events.TrailersReceived():
                self.asked[event.stream_id].trailers = [(bytes(a), bytes(b)) for a, b in event.headers]
            case events.StreamEnded():
                self.asked[event.stream_id].is_whole = True
                self._answer(event.stream_id, self.asked[event.stream_id])

    def _answer(self, stream: int, asked: Asked) -> None:
        said = self._answers[asked.value(b":path")]
        for status in said.early:
            self._h2.send_headers(stream, [(":status", status), ("link", "</a>")])
        has_body = bool(said.body) and asked.value(b":method") != b"HEAD"
        is_bare = not has_body and not said.trailers and said.code is None
        if said.status:
            self._h2.send_headers(stream, [(":status", said.status), *said.fields], end_stream=is_bare)
        for piece in cut(said.body, self._stage.cuts) if has_body else ():
            self._h2.send_data(stream, piece)
        if said.code is not None:
            self._h2.reset_stream(stream, said.code)
        elif said.trailers:
            self._h2.send_headers(stream, said.trailers, end_stream=True)
        elif not is_bare:
            self._h2.end_stream(stream)
        if said.leaves:
            self._has_left = True
            self._h2.close_connection(last_stream_id=stream)


Got = dict[int, tuple[list[tuple[bytes, bytes]], bytes, str]]


def got(peer: Peer, methods: Mapping[int, str]) -> Got:
    """Return what a client of HTTP/2 was answered, by stream: fields, body, and how it ended. methods: as it asked.

    Raises what the library raises for what a client must not be sent.
    """
    client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    for number, method in methods.items():
        head: Fields = [(":method", method), (":scheme", "https"), (":authority", "a"), (":path", "/")]
        client.send_headers(number, head, end_stream=True)
    found: Got = {number: ([], b"", "") for number in methods}
    for event in client.receive_data(bytes(peer.data)):
        fields, body, end = found.get(getattr(event, "stream_id", 0) or 0, ([], b"", ""))
        match event:
            case events.ResponseReceived() | events.TrailersReceived() | events.InformationalResponseReceived():
                fields = [*fields, *((bytes(name), bytes(value)) for name, value in event.headers)]
            case events.DataReceived():
                body += event.data
            case events.StreamEnded():
                end = "whole"
            case events.StreamReset():
                end = f"reset {event.error_code}"
            case _:
                continue
        found[event.stream_id] = (fields, body, end)
    return found
