"""What is done to an answer before the client gets it: decoded where it must be, and scrubbed of the run's credentials.

None of it where no credential was spent (`answering` returns None), so that most exchanges pay nothing. No I/O.

    h1   answer = passage.answering.answer(response, reader)      a response and a BodyReader like any other
    h2   head(…), then feed(data) and, while has_more, feed(b""); finish(); trailers(…)

A body that stays encoded could hide a credential: what cannot be decoded is not delivered after one was sent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from moat.api.http import Headers, RequestHead, ResponseHead
from moat.proxy.bodies import BodyReader
from moat.proxy.decode import Decoder, decoder_for, named_codings, quotable
from moat.proxy.envelopes import OFFERS, ScrubbedMessages, has_envelopes, message_coding
from moat.proxy.http1 import NO_BODY, UNTIL_CLOSE, Response, listed
from moat.proxy.refusal import Refusal
from moat.proxy.scrub import PromptStream, Scrub, ScrubbedStream, Spent
from moat.proxy.spdy import ScrubbedSpdy
from moat.proxy.websocket import ScrubbedFrames, check_extensions, is_websocket

_PARTIAL = 206
_MANIPULATED = 226  # RFC 3229 §10.4.1: by what its IM field says
_MESSAGES_BYTES = 8_192  # searched at once: as many messages as a peer packs into them
_MAX_BARREN = 16  # parts of a coding that bring nothing, taken at once: each costs a copy of what waits


def plain_wanted(head: RequestHead) -> RequestHead:
    """Return head asking for an answer that can be read as it comes: no coding of contents, websockets or messages.

    Nor an instance manipulation, which may be gzip by another name, or a difference to what the client has (RFC 3229).
    """
    plain = head.headers.without("sec-websocket-extensions", "a-im", *OFFERS)
    return head.with_headers(plain.with_set("Accept-Encoding", "identity"))


def whole_wanted(head: RequestHead) -> RequestHead:
    """Return head asking for all of an answer: parts of a few bytes would show a credential that none holds.

    A server may ignore Range (RFC 9110 §14.2), so every client that sends it takes the whole.
    """
    return head.with_headers(head.headers.without("range", "if-range"))


@dataclass(slots=True)
class Answering:
    """One answer on its way. must_read: a credential went out with the request, so nothing unreadable may come back.

    spent: of the run, which may send more while the answer lasts: that is looked for from then on (`latest`).
    scrubbed: how many secrets were taken out so far.
    """

    scrub: Scrub
    must_read: bool
    spent: Spent | None = None
    scrubbed: int = 0
    _stream: ScrubbedStream | None = None
    _decoder: Decoder | None = None
    _messages: ScrubbedMessages | None = None  # instead of _stream, where the body is made of them
    _waiting: bytes = b""  # for _messages
    _has_length: bool = True

    def begun(self) -> Answering:
        """Return one for the next answer; a passage serves requests that come again (`repeats`)."""
        return Answering(self.latest, self.must_read, self.spent)

    @property
    def latest(self) -> Scrub:
        """What to look for now."""
        if self.spent is not None and self.spent.scrub is not self.scrub:
            self.scrub = self.spent.scrub
            if self._stream is not None:
                self._stream.look_for(self.scrub)
        return self.scrub

    def sieve(self, response: Response) -> ScrubbedFrames | ScrubbedSpdy | PromptStream:
        """Return what an upgraded connection's bytes go through; those of a protocol that nobody here knows are bytes.

        Raises Malformed where the server uses websocket extensions that it was not offered.
        """
        if is_websocket(response):
            check_extensions(response)
            return ScrubbedFrames(lambda: self.latest, self._note)
        if listed(response.fields, "upgrade") == ("spdy/3.1",):
            return ScrubbedSpdy(lambda: self.latest, self._note)
        return PromptStream(lambda: self.latest, self._note)

    @property
    def has_more(self) -> bool:
        """Whether feeding nothing brings more."""
        return bool(self._waiting) or (self._decoder is not None and self._decoder.has_more)

    def head(self, head: ResponseHead, *, has_body: bool = True) -> ResponseHead:
        """Return the head as the client gets it. Raises Refusal for a body that cannot be read.

        When the body is decoded, Content-Length and Content-Encoding are gone, and its end must be told otherwise.
        """
        scrub = self.latest
        headers = self._headers(list(head.headers.items))
        if self.must_read:  # no range would be asked for: see whole_wanted
            headers = [pair for pair in headers if pair[0].lower() != "accept-ranges"]
        if has_body:
            headers = self._decoded(head, headers)
        return replace(head, headers=Headers(tuple(headers)), reason=scrub.text(head.reason))

    def trailers(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return trailers without secrets."""
        return self._headers(headers)

    def _headers(self, came: list[tuple[str, str]]) -> list[tuple[str, str]]:
        scrub = self.latest
        clean = scrub.headers(came)
        if clean is not came:
            self.scrubbed += scrub.count("\n".join([part for pair in came for part in pair]).encode("latin-1"))
        return clean

    def _note(self, count: int) -> None:
        self.scrubbed += count

    def feed(self, data: bytes) -> bytes:
        """Return what may leave now. Raises Malformed when a coding is broken."""
        if self._decoder is not None and (data or not self._waiting):
            data = self._decoder.feed(data)
        if self._messages is not None:
            data = self._waiting + data
            data, self._waiting = data[:_MESSAGES_BYTES], data[_MESSAGES_BYTES:]
            return self._messages.feed(data)
        scrub = self.latest
        if self._stream is None:
            self._stream = scrub.stream(self._note)
        return self._stream.feed(data) if data else b""

    def finish(self) -> bytes:
        """Return what was held back, at the body's end. Raises Malformed when the coding had not ended."""
        if self._decoder is not None:
            self._decoder.finish()
        if self._messages is not None:
            rest, self._waiting = self._waiting, b""
            return self._messages.feed(rest) + self._messages.finish()
        return self._stream.finish() if self._stream is not None else b""

    def answer(self, response: Response, reader: BodyReader) -> tuple[Response, BodyReader]:
        """Return response as the client gets it, and a reader of its body. Raises Refusal."""
        if response.framing == NO_BODY:
            return replace(response, head=self.head(response.head, has_body=False)), reader
        head = self.head(response.head)
        framing = response.framing if self._has_length else UNTIL_CLOSE
        return replace(response, head=head, framing=framing), _Reader(self, reader)

    def reader(self, inner: BodyReader) -> BodyReader:
        """Return a reader of the body without secrets, after its head went through `answer` or one just like it."""
        return _Reader(self, inner)

    @property
    def is_decoding(self) -> bool:
        """Whether more is done to the body than to search it, and its head has a part in it."""
        return self._decoder is not None or self._messages is not None

    def _decoded(self, head: ResponseHead, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Find what reads the body, if it needs more than a search; return headers without what is then untrue."""
        coding = named_codings(head.headers)
        untrue: tuple[str, ...] = ()
        if head.status == _MANIPULATED and self.must_read:
            raise _unreadable(coding, head.status)
        if coding and (decoder := self._readable(coding, head.status)):
            self._decoder, untrue = decoder, ("content-encoding", "content-length")
        if has_envelopes(head.headers):
            packing = message_coding(head.headers)
            if packing and self._readable(packing, head.status):
                untrue = (*untrue, "content-length")
            else:
                packing = ""
            self._messages = ScrubbedMessages(packing, lambda: self.latest, self._note)
        self._has_length = not untrue
        return [pair for pair in headers if pair[0].lower() not in untrue] if untrue else headers

    def _readable(self, coding: str, status: int) -> Decoder | None:
        """Return what undoes a coding, None where it is left alone. Raises Refusal where it must not be."""
        decoder = None if status == _PARTIAL else decoder_for(coding)
        if decoder is None and self.must_read:
            raise _unreadable(coding, status)
        return decoder


class _Reader:
    """A BodyReader whose payload is decoded and scrubbed."""

    def __init__(self, answering: Answering, inner: BodyReader) -> None:
        self._answering = answering
        self._inner = inner
        self.is_done = inner.is_done
        self.may_end_here = inner.may_end_here
        self.trailers = answering.trailers(inner.trailers)  # those of an empty body may have come with the head

    @property
    def has_more(self) -> bool:
        """Whether taking again brings more."""
        return self._answering.has_more or self._inner.has_more

    def take(self, buffer: bytearray) -> bytes:
        """Return the payload that is there now, b"" when more is needed or it has_more. Raises Malformed."""
        payload = self._fed(b"")
        if not payload and not self._answering.has_more and not self._inner.is_done:
            payload = self._fed(self._inner.take(buffer))
        self.may_end_here = self._inner.may_end_here
        if self._inner.is_done and not self._answering.has_more and not self.is_done:
            self.is_done = True
            self.trailers = self._answering.trailers(self._inner.trailers)
            payload += self._answering.finish()
        return payload

    def _fed(self, taken: bytes) -> bytes:
        payload = self._answering.feed(taken) if taken else b""
        for _ in range(_MAX_BARREN):
            if payload or not self._answering.has_more:
                break
            payload = self._answering.feed(b"")
        return payload

    def end(self) -> bytes:
        """Return what was held back of a body that ends with its connection. Raises Malformed."""
        return b"" if self.is_done else self._answering.finish()


def _unreadable(coding: str, status: int) -> Refusal:
    came = f"{'part of ' if status == _PARTIAL else ''}{quotable(coding)!r}"
    if status == _MANIPULATED:
        came = "an instance manipulation"
    return Refusal(
        502,
        f"the answer to a request with a credential came as {came}, which cannot be searched for it",
        "failed",
        "coding",
        keeps=True,
    )
