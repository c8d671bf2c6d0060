"""One side of an HTTP/2 connection: bytes in, events out, and what is to be sent. No I/O; `h2` keeps the states.

    link.receive(bytes) ─▶ Head · Payload · Gone · Opened · Farewell           link.outgoing() ─▶ bytes

Not everything is left to `h2`: frames are cut and bounded before it sees them (`http2_frames`), GOAWAY is graceful (it
would close at once), field sections are read by `http2_heads`, so that a malformed one costs its own stream only, and
a stream gets room when its reader has taken, not when bytes have come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from h2 import events as h2_events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from hpack.struct import HeaderTuple

from moat.proxy.http1 import MAX_HEAD_BYTES, Malformed
from moat.proxy.http2_frames import FRAME_BYTES, PREFACE, Broken, Cutter, Flood, Frame, Kind

WINDOW_BYTES = 262_144  # what one stream may have on its way to us: bulk at 20 ms and 10 MB/s, or a slow reader's share
MAX_STREAMS = 100  # RFC 9113 §6.5.2: no fewer

_CONNECTION_BYTES = 16 * 1024 * 1024  # given back as bytes come: what bounds memory is the stream's window
_TABLE_BYTES = 4_096
_H2_STREAMS = 2_000  # h2 ends the connection beyond its limit; a client may open more before it has seen ours

Section: TypeAlias = Literal["request", "response", "interim", "trailers"]

PROTOCOL_ERROR, INTERNAL_ERROR = int(ErrorCodes.PROTOCOL_ERROR), int(ErrorCodes.INTERNAL_ERROR)
NO_ERROR, CANCEL = int(ErrorCodes.NO_ERROR), int(ErrorCodes.CANCEL)
REFUSED_STREAM, CALM = int(ErrorCodes.REFUSED_STREAM), int(ErrorCodes.ENHANCE_YOUR_CALM)
HTTP_1_1_REQUIRED = int(ErrorCodes.HTTP_1_1_REQUIRED)


@dataclass(frozen=True, slots=True)
class Head:
    """A field section of a stream. is_over: the stream ends with it."""

    stream: int
    kind: Section
    pairs: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    is_over: bool


@dataclass(frozen=True, slots=True)
class Payload:
    """A piece of a body, possibly empty when is_over."""

    stream: int
    data: bytes = field(repr=False)
    is_over: bool


@dataclass(frozen=True, slots=True)
class Gone:
    """A stream was reset, by the peer or for what the peer did on it."""

    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class Opened:
    """There may be room to send on a stream; on every one for 0."""

    stream: int


@dataclass(frozen=True, slots=True)
class Farewell:
    """The peer takes no streams after last, and has not looked at those beyond it."""

    last: int
    code: int


Event: TypeAlias = Head | Payload | Gone | Opened | Farewell


_Section: TypeAlias = (
    h2_events.RequestReceived
    | h2_events.ResponseReceived
    | h2_events.InformationalResponseReceived
    | h2_events.TrailersReceived
)
_KINDS: dict[type[_Section], Section] = {
    h2_events.RequestReceived: "request",
    h2_events.ResponseReceived: "response",
    h2_events.InformationalResponseReceived: "interim",
    h2_events.TrailersReceived: "trailers",
}


class Http2:
    """The state of one connection. is_client: whether we open its streams."""

    def __init__(self, *, is_client: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_client = is_client
        self._h2 = _connection(is_client)
        self._raw = bytearray()
        self._taken: dict[int, int] = {}  # taken by the reader of a stream, and not given back yet
        self._unreturned = 0  # the same of the connection
        self._cutter = Cutter(has_preface=not is_client)
        self._flood = Flood(clock)

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes of the peer's in. Raises Malformed when the connection is beyond use; flush and close it then."""
        found: list[Event] = []
        try:
            for frame in self._cutter.feed(data):
                found += self._received(frame)
        except Broken as broken:
            self.goodbye(broken.code)
            raise
        return found

    def outgoing(self) -> bytes:
        """Return what is to be sent, each byte once."""
        data = self._h2.data_to_send()
        if self._raw:
            data += bytes(self._raw)
            self._raw.clear()
        return data

    @property
    def has_room_for_streams(self) -> bool:
        """Whether the peer lets us open one more."""
        return self._h2.open_outbound_streams < self._h2.remote_settings.max_concurrent_streams

    def open(self, fields: Iterable[HeaderTuple], *, is_over: bool) -> int:
        """Send a request; return its stream. Raises Malformed when the peer allows no more of them."""
        try:
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, fields, end_stream=is_over)
        except H2Error:
            raise Malformed("no further stream can be opened") from None
        return number

    def head(self, stream: int, fields: Iterable[HeaderTuple], *, is_over: bool = False) -> None:
        """Send a field section: a response, an interim one, or trailers."""
        self._h2.send_headers(stream, fields, end_stream=is_over)

    def room(self, stream: int) -> int:
        """Return how many bytes may be sent on stream now."""
        return max(0, min(self._h2.local_flow_control_window(stream), 4 * FRAME_BYTES))

    def data(self, stream: int, payload: bytes | memoryview, *, is_over: bool = False) -> None:
        """Send payload, at most `room` of it, in frames."""
        for start in range(0, len(payload) or 1, FRAME_BYTES):
            piece = payload[start : start + FRAME_BYTES]
            self._h2.send_data(stream, bytes(piece), end_stream=is_over and start + FRAME_BYTES >= len(payload))

    def took(self, stream: int, count: int) -> None:
        """Give room back: the reader has taken count bytes of stream. Half a window at once, to save frames."""
        taken = self._taken.get(stream, 0) + count
        if taken >= WINDOW_BYTES // 2:
            known = self._h2.streams.get(stream)
            if known is not None and known.open:
                self._h2.increment_flow_control_window(taken, stream)
            taken = 0
        self._taken[stream] = taken

    def forget(self, stream: int) -> None:
        """Drop what is remembered of a stream that is over for us."""
        self._taken.pop(stream, None)

    def reset(self, stream: int, code: int) -> None:
        """End a stream at once; one that has ended already is left so."""
        known = self._h2.streams.get(stream)
        if known is not None and not known.closed:
            self._h2.reset_stream(stream, code)

    def refuse(self, stream: int) -> None:
        """Reset a stream that was not looked at: its sender may try again. Raises Malformed for a flood of them."""
        self.reset(stream, REFUSED_STREAM)
        self.blame()

    def blame(self) -> None:
        """Count a reset that the peer provoked, as cheaply as with its own (CVE-2025-8671). Raises Malformed."""
        try:
            self._flood.count()
        except Broken as broken:
            self.goodbye(broken.code)
            raise

    def goodbye(self, code: int = NO_ERROR) -> None:
        """Say that no further streams are taken. Those that are open go on."""
        last = self._h2.highest_inbound_stream_id
        self._raw += b"\0\0\x08" + bytes((Kind.GOAWAY, 0)) + bytes(4) + last.to_bytes(4) + code.to_bytes(4)

    def _received(self, frame: Frame) -> Iterator[Event]:
        if self._is_client and frame.kind == Kind.HEADERS and frame.stream % 2 == 0:  # h2 would keep each (§8.4)
            raise Broken("a stream that only a push could have opened")
        if frame.is_idle or self._is_stale(frame):
            self._flood.count()
        if frame.kind == Kind.GOAWAY and not frame.stream and len(payload := frame.payload) >= 8:
            yield Farewell(int.from_bytes(payload[:4]) & 0x7FFFFFFF, int.from_bytes(payload[4:8]))
            return
        try:
            events = self._h2.receive_data(frame.raw)
        except H2Error:
            raise Malformed("the peer broke the rules of HTTP/2") from None  # h2's own words may quote a header
        for event in events:
            yield from self._translated(event)

    def _is_stale(self, frame: Frame) -> bool:
        """Whether a frame is for a stream that is over: h2 answers each with a reset, whether or not that is read."""
        is_new = frame.stream > self._h2.highest_inbound_stream_id and not self._is_client
        if is_new or frame.kind not in (Kind.DATA, Kind.HEADERS):
            return False
        known = self._h2.streams.get(frame.stream)
        return known is None or known.closed

    def _translated(self, event: h2_events.Event) -> Iterator[Event]:
        match event:
            case (
                h2_events.RequestReceived()
                | h2_events.ResponseReceived()
                | h2_events.InformationalResponseReceived()
                | h2_events.TrailersReceived()
            ):
                yield self._head(event)
            case h2_events.DataReceived():
                yield from self._payload(event)
            case h2_events.StreamReset():
                if not event.remote_reset:
                    self._flood.count()
                yield Gone(event.stream_id, int(event.error_code))
            case h2_events.WindowUpdated():
                yield Opened(event.stream_id)
            case h2_events.RemoteSettingsChanged():
                self._h2.encoder.header_table_size = min(self._h2.encoder.header_table_size, _TABLE_BYTES)
                yield Opened(0)  # the initial window may have grown

    def _head(self, event: _Section) -> Head:
        stream = self._h2.streams.get(event.stream_id)
        if stream is not None:  # h2 4 ends the connection for a wrong length; a lane counts, and ends the stream
            stream._expected_content_length = None
        pairs = tuple((bytes(name), bytes(value)) for name, value in event.headers)
        return Head(event.stream_id, _KINDS[type(event)], pairs, getattr(event, "stream_ended", None) is not None)

    def _payload(self, event: h2_events.DataReceived) -> Iterator[Event]:
        self._unreturned += event.flow_controlled_length
        if self._unreturned >= _CONNECTION_BYTES // 16:
            self._h2.increment_flow_control_window(self._unreturned)
            self._unreturned = 0
        if padding := event.flow_controlled_length - len(event.data):
            self.took(event.stream_id, padding)  # nobody else will
        yield Payload(event.stream_id, event.data, event.stream_ended is not None)


class _Connection(H2Connection):
    MAX_CLOSED_STREAMS = 4_096  # remembered for frames that come late; h2's own limit would be 6 MiB a connection


def _connection(is_client: bool) -> H2Connection:
    config = H2Configuration(
        client_side=is_client,
        header_encoding=None,
        validate_inbound_headers=False,  # http2_heads does, for the stream and not for the connection
        normalize_inbound_headers=False,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    connection = _Connection(config)
    told = {
        SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
        SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
        SettingCodes.ENABLE_PUSH: 0,
    }
    connection.local_settings = Settings(client=is_client, initial_values=told)
    connection.initiate_connection()
    connection.increment_flow_control_window(_CONNECTION_BYTES)
    kept = {**told, SettingCodes.MAX_CONCURRENT_STREAMS: _H2_STREAMS}
    connection.local_settings = Settings(client=is_client, initial_values=kept)
    if not is_client:
        connection.receive_data(PREFACE)  # which the cutter has taken off
    return connection
