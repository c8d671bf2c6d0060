"""Reads from an answer which model gave it and for how many tokens, while it passes. No I/O; delays nothing.

    scrubbed payload ─▶ passed on as it is
          └─ JSON: kept, bounded, read at the end     event stream: line by line, those that speak of usage

What is too long, broken or says nothing leaves a record without a model: the answer is what matters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from moat.api.http import RequestHead
from moat.api.rules import Price, ReadUsage, Rule
from moat.net.paths import decoded_path
from moat.proxy.bodies import BodyReader
from moat.proxy.http1 import Response
from moat.proxy.inject import matches
from moat.proxy.record import Trail, Usage

MAX_BYTES = 262_144  # of an answer, or of a line of a stream: some milliseconds to parse
MAX_MODEL_CHARS = 128
_MAX_TOKENS = 1_000_000_000_000  # more is a joke of the service's
_DATED = re.compile(r"(?:-(?:latest|[0-9]{4,8}(?:-[0-9]{2}){0,2}))?")
_COUNTS = ("input", "output", "cached", "written")


def usage_rules(rules: Iterable[Rule], head: RequestHead) -> tuple[ReadUsage, ...]:
    """Return the rules that read the answer to head. rules: those for its authority."""
    ours = [rule for rule in rules if isinstance(rule, ReadUsage)]
    path = decoded_path(head.path) if ours else None
    return tuple(rule for rule in ours if matches(rule.match, head, path))


def metered(rules: Sequence[ReadUsage], response: Response, reader: BodyReader, trail: Trail) -> BodyReader:
    """Return a reader of the same body; what it says of usage goes into trail."""
    if not rules or response.head.status != 200 or reader.is_done:
        return reader
    kind = (response.head.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "text/event-stream"):
        return reader
    trail.meter = meter = Meter(rules[0], is_stream=kind == "text/event-stream")
    return _Metered(reader, meter)


class Meter:
    """Reads one answer."""

    def __init__(self, rule: ReadUsage, *, is_stream: bool) -> None:
        self._rule = rule
        self._is_stream = is_stream
        self._kept = bytearray()  # the answer, or the line that is not all there
        self._is_too_long = False
        self._model = ""
        self._counts: dict[str, int] = {}

    def feed(self, data: bytes) -> None:
        """Take some of the answer."""
        if not self._is_stream:
            return self._keep(data)
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._keep(line)
            self._read_line()
        return self._keep(rest)

    def usage(self) -> Usage:
        """Return what the answer said so far."""
        if self._is_stream:
            self._read_line()
        elif self._kept:
            self._read(bytes(self._kept))
            self._kept.clear()
        counts = {name: self._counts.get(name, 0) for name in _COUNTS}
        apart = counts["cached"] + counts["written"]
        total = counts["input"] + (apart if self._rule.is_apart else 0)
        cost = _cost(self._rule.prices, self._model, counts | {"input": max(total - apart, 0)})
        return Usage(self._model, total, counts["output"], counts["cached"], cost)

    def _keep(self, data: bytes) -> None:
        self._is_too_long = self._is_too_long or len(self._kept) + len(data) > MAX_BYTES
        if self._is_too_long:
            self._kept.clear()
        else:
            self._kept += data

    def _read_line(self) -> None:
        if not self._is_too_long and self._kept.startswith(b"data:"):
            self._read(bytes(self._kept[5:]))
        self._kept.clear()
        self._is_too_long = False

    def _read(self, text: bytes) -> None:
        if b'"usage"' not in text:
            return
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            return
        model = _found(answer, self._rule.model)
        if isinstance(model, str) and model.isprintable():
            self._model = model[:MAX_MODEL_CHARS]
        for name in _COUNTS:
            count = _found(answer, getattr(self._rule, name))
            if type(count) is int and 0 <= count < _MAX_TOKENS:
                self._counts[name] = count


class _Metered:
    """A BodyReader that a meter listens to."""

    def __init__(self, inner: BodyReader, meter: Meter) -> None:
        self._inner = inner
        self._meter = meter
        self.is_done = inner.is_done
        self.may_end_here = inner.may_end_here
        self.trailers = inner.trailers

    @property
    def has_more(self) -> bool:
        """Whether taking again brings more."""
        return self._inner.has_more

    def take(self, buffer: bytearray) -> bytes:
        """Return the payload that is there now, b"" when more is needed or it has_more. Raises Malformed."""
        payload = self._inner.take(buffer)
        self.is_done, self.may_end_here = self._inner.is_done, self._inner.may_end_here
        self.trailers = self._inner.trailers
        if payload:
            self._meter.feed(payload)
        return payload

    def end(self) -> bytes:
        """Return payload that was kept back. Raises Malformed."""
        payload = self._inner.end()
        self._meter.feed(payload)
        return payload


def _found(answer: object, paths: Iterable[str]) -> object:
    """Return what stands at the first of dotted paths that leads somewhere, None for nothing."""
    for path in paths:
        value: object = answer
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def _cost(prices: Iterable[Price], model: str, counts: Mapping[str, int]) -> float:
    """Return an estimate in US dollars, 0 for a model without a price."""
    for price in prices:
        if model.startswith(price.model) and _DATED.fullmatch(model[len(price.model) :]):
            return round(sum(counts[name] * float(getattr(price, name)) for name in _COUNTS) / 1_000_000, 6)
    return 0.0
