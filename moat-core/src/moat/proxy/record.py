"""What is remembered of one exchange: collected on its way, emitted exactly once. Never a query, a header or a body."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from moat.api.http import Authority
from moat.api.runs import ExchangeRecord
from moat.proxy.refusal import Refusal

MAX_PATH_CHARS = 2048

Emit = Callable[[ExchangeRecord], None]


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

    def ask(self, method: str, target: str) -> None:
        """Remember what was asked, without query or authority."""
        self.method = method
        self.path = without_query(target)

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
