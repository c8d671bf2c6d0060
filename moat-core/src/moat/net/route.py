"""Direct, or through the company's HTTP proxy? Read from `upstream.proxy` and `upstream.no_proxy`. Pure.

    http://[user:password@]host:port        no_proxy: host · *.host, either with :port · * (everything goes direct)

A pattern without a port covers every port of its host: it is about where a host is, not about what may leave.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from moat.api.http import Authority
from moat.net.authority import AuthorityRefused, canonical_host, from_host


@dataclass(frozen=True, slots=True)
class Direct:
    """One pattern of hosts that are reached without the proxy. host: "" for any; port: 0 for any."""

    host: str
    is_wildcard: bool = False
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Direct:
        """Return the pattern that text spells. Raises AuthorityRefused."""
        if text == "*":
            return cls("", is_wildcard=True)
        name = text.removeprefix("*.")
        has_port = ":" in name.rpartition("]")[2]
        authority = from_host(name, "https")
        return cls(authority.host, name != text, authority.port if has_port else 0)

    def matches(self, authority: Authority) -> bool:
        """Whether authority is covered."""
        if self.port not in (0, authority.port):
            return False
        if self.is_wildcard:
            return not self.host or authority.host.endswith(f".{self.host}")
        return authority.host == self.host


@dataclass(frozen=True, slots=True)
class ProxyRoute:
    """The company's proxy. authorization: the value of Proxy-Authorization, "" for none; a secret."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)
    direct: tuple[Direct, ...] = ()

    @classmethod
    def parse(cls, url: str, no_proxy: tuple[str, ...] = ()) -> ProxyRoute:
        """Return the route that the settings spell. Raises AuthorityRefused, whose text never quotes url."""
        try:
            parts = urlsplit(url)
            host, port = canonical_host(parts.hostname or ""), parts.port
        except ValueError:  # AuthorityRefused is one; urllib's own texts quote what they read
            raise AuthorityRefused("upstream.proxy has no host and port that can be read") from None
        if parts.scheme != "http" or not port or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise AuthorityRefused("upstream.proxy must look like http://[user:password@]host:port")
        authorization = "" if parts.username is None else f"Basic {_encoded(parts.username, parts.password or '')}"
        return cls(host, port, authorization, tuple(Direct.parse(text) for text in no_proxy))

    def __str__(self) -> str:
        """Return host:port, without user and password."""
        return str(Authority("", self.host, self.port))

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The fields for the proxy itself, in every request that it sees."""
        return [("Proxy-Authorization", self.authorization)] if self.authorization else []

    def is_for(self, authority: Authority) -> bool:
        """Whether authority is reached through the proxy."""
        return not any(pattern.matches(authority) for pattern in self.direct)


def proxy_secrets(url: str) -> list[str]:
    """Return what must not be logged of a proxy's url: the password, as typed, decoded and as it is sent."""
    _, at, _ = url.rpartition("@")
    if not at:
        return []
    user, _, password = url.partition("://")[2].rpartition("@")[0].partition(":")
    return [password, unquote(password), _encoded(user, password)]


def _encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
