"""Host patterns of policies: `host` or `*.host`, either with `:port`, and `*` alone.

    api.example.com        that host                    *.example.com      every host below it, never example.com itself
    api.example.com:8443   that port only               *                  any host, spelled on purpose

Without a port: 443, and 80 for http. Everything else is an error, never a pattern that silently matches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from moat.api.errors import UsageError
from moat.api.http import DEFAULT_PORTS, Authority
from moat.api.runs import HOST_NAME
from moat.net.authority import AuthorityRefused, from_host, is_address

# Second labels under which registries of two-letter countries sell names (co.uk, com.au): too wide for a wildcard.
_REGISTRY_LABELS = frozenset(("ac", "co", "com", "edu", "go", "gob", "gov", "mil", "ne", "net", "nom", "or", "org"))
_HINT = "write a host, *.host, either with :port, or * for every host"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One parsed pattern. host: canonical; "" for any. port: None for the scheme's own."""

    host: str
    is_wildcard: bool = False
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Return the pattern that text spells. Raises UsageError, saying what to write instead."""
        if text == "*":
            return cls("", is_wildcard=True)
        is_wildcard = text.startswith("*.")
        name = text[2:] if is_wildcard else text
        if "*" in name:
            raise UsageError(f"{text!r} is no host pattern: a * stands only in front, as *.host", hint=_HINT)
        try:
            authority = from_host(name, "https")
        except AuthorityRefused as refused:
            raise UsageError(f"{text!r} is no host pattern: {refused}", hint=_HINT) from None
        if is_wildcard and _is_too_wide(authority.host):
            raise UsageError(f"{text!r} covers names of many owners", hint=_HINT)
        return cls(authority.host, is_wildcard, authority.port if _has_port(name) else None)

    def matches(self, authority: Authority) -> bool:
        """Whether authority is covered: host and port."""
        return self.covers_host(authority.host) and self._is_port(authority)

    def covers_host(self, host: str) -> bool:
        """Whether a canonical host is covered, whatever the port."""
        if not self.is_wildcard:
            return host == self.host
        return not self.host or host.endswith(f".{self.host}")

    def _is_port(self, authority: Authority) -> bool:
        if self.port is not None:
            return authority.port == self.port
        return authority.port == DEFAULT_PORTS.get(authority.scheme)


def is_this_machine(host: str) -> bool:
    """Whether a canonical host is what runs call this machine: such a name has no address anywhere."""
    return host == HOST_NAME or host.endswith(f".{HOST_NAME}")


def _has_port(name: str) -> bool:
    return ":" in name.rpartition("]")[2]


def _is_too_wide(host: str) -> bool:
    labels = host.split(".")
    if is_address(host) or len(labels) == 1:
        return True
    return len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _REGISTRY_LABELS
