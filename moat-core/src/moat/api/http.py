"""Plain values for HTTP messages: what rules, providers and the proxy talk about. No I/O, no parsing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, order=True)
class Authority:
    """Who a request is for: the one object that policy, injection, trace and dial all read.

    scheme: "https" or "http". host: canonical lower-case A-label name, or an IP literal without brackets.
    Made by `moat.net.authority`, never by hand from client input.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return host[:port] as in a Host header: IPv6 in brackets, a default port left out (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Headers:
    """Header fields in the order and spelling they came in, repeated ones kept; names compare without case."""

    items: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Headers:
        """Return headers from (name, value) pairs, in their order."""
        return cls(tuple(pairs))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.items)

    def __contains__(self, name: str) -> bool:
        wanted = name.lower()
        return any(key.lower() == wanted for key, _ in self.items)

    def get(self, name: str) -> str | None:
        """Return the first value of name, or None."""
        wanted = name.lower()
        return next((value for key, value in self.items if key.lower() == wanted), None)

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return every value of name, in order."""
        wanted = name.lower()
        return tuple(value for key, value in self.items if key.lower() == wanted)

    def without(self, *names: str) -> Headers:
        """Return a copy that has none of names."""
        unwanted = {name.lower() for name in names}
        return Headers(tuple(pair for pair in self.items if pair[0].lower() not in unwanted))

    def with_set(self, name: str, value: str) -> Headers:
        """Return a copy with exactly one field called name, where the first one stood, else at the end."""
        wanted, done = name.lower(), False
        kept: list[tuple[str, str]] = []
        for pair in self.items:
            if pair[0].lower() != wanted:
                kept.append(pair)
            elif not done:
                kept.append((name, value))
                done = True
        return Headers(tuple(kept) if done else (*kept, (name, value)))

    def with_added(self, name: str, value: str) -> Headers:
        """Return a copy with one more field at the end."""
        return Headers((*self.items, (name, value)))


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request without its body. target: origin form (path and query) as sent, for example `/user?page=2`."""

    method: str
    authority: Authority
    target: str
    headers: Headers = field(default_factory=Headers)
    version: str = "1.1"

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def with_headers(self, headers: Headers) -> RequestHead:
        """Return a copy with these headers."""
        return replace(self, headers=headers)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response without its body. reason may be empty."""

    status: int
    headers: Headers = field(default_factory=Headers)
    reason: str = ""
    version: str = "1.1"
