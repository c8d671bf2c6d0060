"""Headers and the beginnings of bodies of one exchange, for the trace of a run that asked for them. No I/O.

    head ─▶ names, values without secrets        body ─▶ its first bytes, scrubbed as a stream ─▶ text

What a header's name says to be a secret is left out, whosever it is; so is a body that is encoded, or no text. Every
secret that the run has or may have is looked for, also in what a client sent: a tail that may begin one is cut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from moat.proxy.admit import LiveRun
from moat.proxy.http1 import Request
from moat.proxy.record import Trail
from moat.proxy.scrub import Scrub, ScrubbedStream

BODY_BYTES = 8_192
MAX_FIELDS, MAX_VALUE_CHARS = 100, 512
LEFT_OUT = "[moat:left out]"
_SECRET_NAME = re.compile(r"auth|cookie|credential|key|pass|secret|session|signature|token", re.IGNORECASE)
_URLS = ("referer", "location", "content-location", "link")
_TEXT = re.compile(r"text/.*|application/(?:.*\+)?(?:json|xml|x-www-form-urlencoded|javascript|graphql|x-ndjson)")

Fields = tuple[tuple[str, str], ...]


class Sample:
    """What is remembered of one exchange. scrub: every secret of the run."""

    def __init__(self, scrub: Scrub, headers: Iterable[tuple[str, str]], fields: Mapping[str, tuple[str, ...]]) -> None:
        self._scrub = scrub
        self.request_headers = self._shown(headers)
        self.response_headers: Fields = ()
        self._up = _Beginning(scrub, fields)
        self._down = _Beginning(scrub, {})

    def answer(self, headers: Iterable[tuple[str, str]], fields: Mapping[str, tuple[str, ...]]) -> None:
        """Remember the head of an answer."""
        self.response_headers = self._shown(headers)
        self._down = _Beginning(self._scrub, fields)

    def sent(self, data: bytes) -> None:
        """Remember some of the request's body, if there is room."""
        self._up.add(data)

    def received(self, data: bytes) -> None:
        """Remember some of the answer's body, if there is room."""
        self._down.add(data)

    @property
    def request_body(self) -> str:
        """The beginning of the request's body."""
        return self._up.text

    @property
    def response_body(self) -> str:
        """The beginning of the answer's body."""
        return self._down.text

    def _shown(self, headers: Iterable[tuple[str, str]]) -> Fields:
        pairs = self._scrub.headers([*headers][:MAX_FIELDS])
        return tuple((name[:MAX_VALUE_CHARS], _value(name, value)) for name, value in pairs)


class _Beginning:
    """The first bytes of a body, without secrets."""

    def __init__(self, scrub: Scrub, fields: Mapping[str, tuple[str, ...]]) -> None:
        kind = fields.get("content-type", ("",))[0].partition(";")[0].strip().lower()
        coding = fields.get("content-encoding", ("identity",))[0].strip().lower()
        is_wanted = coding == "identity" and _TEXT.fullmatch(kind) is not None
        self._stream: ScrubbedStream | None = scrub.stream() if is_wanted else None
        self._room = BODY_BYTES
        self._clean = bytearray()

    def add(self, data: bytes) -> None:
        if self._stream is not None and self._room:
            piece = data[: self._room]
            self._room -= len(piece)
            self._clean += self._stream.feed(piece)

    @property
    def text(self) -> str:
        """What was there. A tail that may begin a secret is part of it only if the body ended before its room did."""
        if self._stream is not None and self._room:
            self._clean += self._stream.finish()
        self._stream = None
        return self._clean.decode(errors="replace")


def begin_sample(run: LiveRun, request: Request, trail: Trail) -> None:
    """Have trail remember headers and bodies, where the run asked for it."""
    if run.context.trace_bodies:
        trail.sample = Sample(run.spent.known, request.headers.items, request.fields)


def _value(name: str, value: str) -> str:
    if name.lower() in _URLS:  # never the values of a query
        value = value.partition("?")[0]
    return LEFT_OUT if _SECRET_NAME.search(name) else value[:MAX_VALUE_CHARS]
