"""What is remembered of one exchange: collected on its way, emitted exactly once. Never a query, a header or a body."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Protocol

from moat.api.http import Authority
from moat.api.runs import Decision, ExchangeRecord, Fields
from moat.proxy.refusal import Refusal

MAX_PATH_CHARS = 2048

Emit = Callable[[ExchangeRecord], None]
EmitForwarded = Callable[[str, "Line", float, float, float], None]
"""Of a run's id, the line, and the times as `forwarded.packed` has them."""

MAX_NAME_CHARS = 128  # of what the client calls its request
MAX_QUERY_KEYS = 32
_QUERY_KEY = re.compile(r"[A-Za-z0-9_.:$%\[\]-]{1,64}")  # anything else may be a value that stands where a name should
_CLIENT_IDS = ("x-request-id", "x-client-request-id", "x-correlation-id")
_FIELDS = tuple(each.name for each in fields(ExchangeRecord))
_values = attrgetter(*_FIELDS)  # asdict copies deeply: four times the cost of all the rest
_as_json = json.JSONEncoder(separators=(",", ":")).encode
_JSON_TYPES = {"int": int, "float": float, "str": str, "Decision": str}
_OF_SAMPLES = ("request_headers", "response_headers", "request_body", "response_body")  # left out where there are none
_TYPES = {each.name: _JSON_TYPES.get(str(each.type), list) for each in fields(ExchangeRecord)}
_DEFAULTS = {each.name: each.default for each in fields(ExchangeRecord) if each.default is not MISSING}
_REST_CHARS = 91  # of a line beyond its beginning, where it took some milliseconds
_BEGINNING = f"req_{secrets.token_hex(4)}"  # of this process's ids


class _Numbers:
    """Of ids."""

    def __init__(self) -> None:
        self._next = 1

    def take(self, count: int = 1) -> int:
        """Return the first of as many in a row, which nobody else gets."""
        first = self._next
        self._next += count
        return first


new_numbers = _Numbers().take


def new_id() -> str:
    """Return an id for a request, unlike any other of this installation."""
    return f"{_BEGINNING}{new_numbers():08x}"


class Scrubs(Protocol):
    """Who takes secrets out of an answer, and counts them."""

    scrubbed: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a model was asked for, as in ExchangeRecord."""

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0


class Sampled(Protocol):
    """Who remembers headers and the beginnings of bodies."""

    @property
    def request_headers(self) -> Fields: ...  # as in ExchangeRecord
    @property
    def response_headers(self) -> Fields: ...  # as in ExchangeRecord
    @property
    def request_body(self) -> str: ...  # as in ExchangeRecord
    @property
    def response_body(self) -> str: ...  # as in ExchangeRecord
    def answer(self, headers: Iterable[tuple[str, str]], fields: Mapping[str, tuple[str, ...]]) -> None: ...
    def sent(self, data: bytes) -> None: ...
    def received(self, data: bytes) -> None: ...


class Meter(Protocol):
    """Who reads usage from an answer."""

    def usage(self) -> Usage:
        """Return what was read so far."""
        ...


@dataclass(slots=True)
class Trail:
    """One exchange while it lasts. Its owner calls one of the ends; further ends do nothing.

    host: as the client spelled it, until an Authority is agreed. first: when the upstream's answer came, as started, 0
    before. The rest as in ExchangeRecord.
    """

    emit: Emit = field(repr=False)
    run_id: str
    via: str
    method: str = ""
    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    status: int = 0
    grants: tuple[str, ...] = ()
    request_bytes: int = 0
    response_bytes: int = 0
    started: float = field(default_factory=time.monotonic)
    at: float = field(default_factory=time.time)
    is_done: bool = False
    id: str = field(default_factory=new_id)
    client_id: str = ""
    first: float = 0.0
    query_keys: tuple[str, ...] = ()
    protocol: str = ""
    injected: tuple[str, ...] = ()
    replaced: int = 0
    scrubs: Scrubs | None = field(default=None, repr=False)
    meter: Meter | None = field(default=None, repr=False)
    sample: Sampled | None = field(default=None, repr=False)
    decision: Decision = ""
    rule: str = ""

    def aim(self, authority: Authority) -> None:
        """Remember whom it is for."""
        self.scheme, self.host, self.port = authority.scheme, authority.host, authority.port

    def ask(self, method: str, target: str, unsaid: Callable[[str], str] = str) -> None:
        """Remember what was asked, without query or authority. unsaid: takes secrets out."""
        self.method = method
        self.path = unsaid(without_query(target))
        self.query_keys = tuple(unsaid("\n".join(query_keys(target))).split("\n")) if "?" in target else ()

    def introduce(
        self, version: str, headers: Mapping[str, tuple[str, ...]], unsaid: Callable[[str], str] = str
    ) -> None:
        """Remember the client's version of HTTP, and what it calls its request. headers: by lower-case name."""
        self.protocol = "h2" if version == "2" else f"http/{version}"
        for name in _CLIENT_IDS:
            if name in headers:
                self.client_id = unsaid(headers[name][0][:MAX_NAME_CHARS])
                return

    def answered(self, status: int, when: float = 0.0) -> None:
        """Remember the upstream's answer. when: it came, as `now`; left out, now."""
        self.status = status
        self.first = self.first or when or self.now()

    def sent(self, payload: bytes) -> None:
        """Remember some of the request's body."""
        self.request_bytes += len(payload)
        if self.sample is not None:
            self.sample.sent(payload)

    def received(self, payload: bytes) -> None:
        """Remember some of the answer's body, as the client gets it."""
        self.response_bytes += len(payload)
        if self.sample is not None:
            self.sample.received(payload)

    @staticmethod
    def now() -> float:
        """Return the time by the clock of started."""
        return time.monotonic()

    def refused(self, refusal: Refusal) -> None:
        """End with an answer of the proxy's own."""
        self.status = refusal.status
        if refusal.outcome == "denied":
            self.decision, self.rule = "deny", refusal.rule or refusal.kind
        self._end(refusal.outcome, refusal.reason, refusal.kind or "refused", refusal.allow_line)

    def forwarded(self, reason: str = "") -> None:
        """End with the upstream's answer; reason: what cut it short, "" for a whole one."""
        self._end("forwarded", reason, "cut" if reason else "")

    def failed(self, reason: str) -> None:
        """End without any answer."""
        self._end("failed", reason, "broken")

    def _end(self, outcome: str, reason: str, error: str, allow_line: str = "") -> None:
        if self.is_done:
            return
        self.is_done = True
        usage, sample = Usage() if self.meter is None else self.meter.usage(), self.sample
        self.emit(
            ExchangeRecord(
                run_id=self.run_id,
                at=_timestamp(self.at),
                via=self.via,
                method=self.method,
                scheme=self.scheme,
                host=self.host,
                port=self.port,
                path=self.path,
                status=self.status,
                outcome=outcome,
                reason=reason,
                grants=self.grants,
                request_bytes=self.request_bytes,
                response_bytes=self.response_bytes,
                duration_ms=round((self.now() - self.started) * 1000, 3),
                allow_line=allow_line,
                id=self.id,
                client_id=self.client_id,
                first_byte_ms=round((self.first - self.started) * 1000, 3) if self.first else 0.0,
                query_keys=self.query_keys,
                protocol=self.protocol,
                injected=self.injected,
                replaced=self.replaced,
                scrubbed=0 if self.scrubs is None else self.scrubs.scrubbed,
                decision=self.decision,
                rule=self.rule,
                error=error,
                model=usage.model,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_tokens=usage.cached_tokens,
                cost_usd=usage.cost_usd,
                request_headers=() if sample is None else sample.request_headers,
                response_headers=() if sample is None else sample.response_headers,
                request_body="" if sample is None else sample.request_body,
                response_body="" if sample is None else sample.response_body,
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """What is the same in the lines of forwarded exchanges of one run that differ in their times only.

    beginning: of each line. size: characters of a whole one.
    """

    beginning: str
    status: int
    request_bytes: int
    response_bytes: int
    scrubbed: int
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", len(self.beginning) + _REST_CHARS)


def beginning_of(trail: Trail) -> str:
    """Return how the lines of forwarded exchanges begin that were asked for alike."""
    same = {
        "version": 1, "run_id": trail.run_id, "via": trail.via, "method": trail.method, "scheme": trail.scheme,
        "host": trail.host, "port": trail.port, "path": trail.path, "query_keys": trail.query_keys,
        "protocol": trail.protocol, "client_id": trail.client_id, "outcome": "forwarded", "reason": "",
        "grants": trail.grants, "injected": trail.injected, "replaced": trail.replaced,
        "decision": trail.decision, "rule": trail.rule, "error": "", "allow_line": "",
        **asdict(Usage()),
    }  # fmt: skip
    return _as_json(same)[:-1]


def line_with(beginning: str, status: int, request_bytes: int, response_bytes: int, scrubbed: int) -> Line:
    """Return the line of exchanges that were answered alike. beginning: of `beginning_of`."""
    same = (
        f'{beginning},"status":{status},"request_bytes":{request_bytes},"response_bytes":{response_bytes},'
        f'"scrubbed":{scrubbed},"id":"{_BEGINNING}'
    )
    return Line(same, status, request_bytes, response_bytes, scrubbed)


def line_of(record: ExchangeRecord) -> str:
    """Return a record as one line of JSON, without its end."""
    wire = dict(zip(_FIELDS, _values(record), strict=True))
    for name in _OF_SAMPLES:
        if not wire[name]:
            del wire[name]
    return _as_json(wire)


def record_of(line: str | bytes) -> ExchangeRecord:
    """Return the record in a line; fields that a newer worker added are ignored. Raises ValueError."""
    wire = json.loads(line)
    if not isinstance(wire, dict):
        raise ValueError("an exchange is no JSON object")
    values: dict[str, Any] = _DEFAULTS | {name: wire[name] for name in _FIELDS if name in wire}
    if len(values) < len(_FIELDS) or not all(_fits(name, value) for name, value in values.items()):
        raise ValueError("an exchange lacks a value")
    parts: dict[str, Any] = {name: _tuple(each) if _TYPES[name] is list else each for name, each in values.items()}
    return ExchangeRecord(**parts)


def _tuple(value: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(each if isinstance(each, str) else tuple(each) for each in value)


def _fits(name: str, value: object) -> bool:
    if isinstance(value, tuple | list):
        if name in _OF_SAMPLES:
            return all(isinstance(pair, tuple | list) and list(map(type, pair)) == [str, str] for pair in value)
        return _TYPES[name] is list and all(isinstance(each, str) for each in value)
    return type(value) is _TYPES[name]


def _timestamp(at: float) -> str:
    """Return ISO 8601 in UTC, to the millisecond."""
    return millisecond(int(at * 1000))


@lru_cache(maxsize=64)  # what ends together began together
def millisecond(number: int) -> str:
    """Return the ISO 8601 of a Unix time in milliseconds."""
    return datetime.fromtimestamp(number // 1000, UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{number % 1000:03d}+00:00")


def query_keys(target: str) -> list[str]:
    """Return the names in a target's query, bounded. What has no value is left out: it may be one."""
    query = target.partition("#")[0].partition("?")[2]
    parts = (part.partition("=") for part in query.split("&", MAX_QUERY_KEYS)[:MAX_QUERY_KEYS])
    names = dict.fromkeys(name for name, _, value in parts if value)
    return [name for name in names if _QUERY_KEY.fullmatch(name)]


def without_query(target: str) -> str:
    """Return the path of a request target in any form, bounded; an absolute form loses its authority with userinfo."""
    path = target.partition("?")[0].partition("#")[0]
    if "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path[:MAX_PATH_CHARS]
