"""What is remembered of one exchange: collected on its way, emitted exactly once. Never a query, a header or a body."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter

from moat.api.http import Authority
from moat.api.runs import ExchangeRecord
from moat.proxy.refusal import Refusal

MAX_PATH_CHARS = 2048

Emit = Callable[[ExchangeRecord], None]
EmitLine = Callable[[str, str], None]  # of a run's id and a `Line`

_FIELDS = tuple(each.name for each in fields(ExchangeRecord))
_values = attrgetter(*_FIELDS)  # asdict copies deeply: four times the cost of all the rest
_as_json = json.JSONEncoder(separators=(",", ":")).encode
_JSON_TYPES = {"int": int, "float": float, "str": str}
_TYPES = tuple(_JSON_TYPES.get(str(each.type), list) for each in fields(ExchangeRecord))


@dataclass(slots=True)
class Trail:
    """One exchange while it lasts. Its owner calls one of the ends; further ends do nothing.

    host: as the client spelled it, until an Authority is agreed.
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

    def aim(self, authority: Authority) -> None:
        """Remember whom it is for."""
        self.scheme, self.host, self.port = authority.scheme, authority.host, authority.port

    def ask(self, method: str, target: str, unsaid: Callable[[str], str] = str) -> None:
        """Remember what was asked, without query or authority. unsaid: takes secrets out."""
        self.method = method
        self.path = unsaid(without_query(target))

    def refused(self, refusal: Refusal) -> None:
        """End with an answer of the proxy's own."""
        self.status = refusal.status
        self._end(refusal.outcome, refusal.reason, refusal.allow_line)

    def forwarded(self, reason: str = "") -> None:
        """End with the upstream's answer; reason: what cut it short, "" for a whole one."""
        self._end("forwarded", reason)

    def failed(self, reason: str) -> None:
        """End without any answer."""
        self._end("failed", reason)

    def _end(self, outcome: str, reason: str, allow_line: str = "") -> None:
        if self.is_done:
            return
        self.is_done = True
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
                duration_ms=round((time.monotonic() - self.started) * 1000, 3),
                allow_line=allow_line,
            )
        )


class Line:
    """The line of a forwarded exchange, but for what differs each time: as `line_of`, for less."""

    __slots__ = ("_before", "_between", "_counted")

    def __init__(self, trail: Trail) -> None:
        asked = {"via": trail.via, "method": trail.method, "scheme": trail.scheme, "host": trail.host,
                 "port": trail.port, "path": trail.path}  # fmt: skip
        told = {"outcome": "forwarded", "reason": "", "grants": trail.grants}
        self._before = f'{{"run_id":{_as_json(trail.run_id)},"at":"'
        self._between = f'+00:00",{_as_json(asked)[1:-1]},"status":'
        self._counted = f',{_as_json(told)[1:-1]},"request_bytes":'

    def text(self, at: float, status: int, request_bytes: int, response_bytes: int, duration_s: float) -> str:
        """Return the line, without its end. at: Unix time."""
        second = int(at)
        return (
            f"{self._before}{_second(second)}.{int((at - second) * 1000):03d}{self._between}{status}{self._counted}"
            f'{request_bytes},"response_bytes":{response_bytes},"duration_ms":{duration_s * 1000:.3f},"allow_line":""}}'
        )


def line_of(record: ExchangeRecord) -> str:
    """Return a record as one line of JSON, without its end."""
    return _as_json(dict(zip(_FIELDS, _values(record), strict=True)))


def record_of(line: str | bytes) -> ExchangeRecord:
    """Return the record in a line; fields that a newer worker added are ignored. Raises ValueError."""
    wire = json.loads(line)
    if not isinstance(wire, dict):
        raise ValueError("an exchange is no JSON object")
    values = [wire.get(name) for name in _FIELDS]
    if tuple(map(type, values)) != _TYPES or not all(isinstance(grant, str) for grant in wire["grants"]):
        raise ValueError("an exchange lacks a value")
    return ExchangeRecord(**(dict(zip(_FIELDS, values, strict=True)) | {"grants": tuple(wire["grants"])}))


def _timestamp(at: float) -> str:
    """Return ISO 8601 in UTC, to the millisecond."""
    second = int(at)
    return f"{_second(second)}.{int((at - second) * 1000):03d}+00:00"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def without_query(target: str) -> str:
    """Return the path of a request target in any form, bounded; an absolute form loses its authority with userinfo."""
    path = target.partition("?")[0].partition("#")[0]
    if "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path[:MAX_PATH_CHARS]
