"""Where a credential is spent: values that say for which requests, and what is done to them.

A rule is plain data, so that it can cross a socket to the proxy. Providers make rules; only the proxy acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moat.api.errors import MoatError

_FORBIDDEN = frozenset("\r\n\0")


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is for. Every part must hold; an empty part holds always.

    authority: exact host, or host:port; without a port it means https on 443 only. Never a pattern.
    methods: upper case. paths: patterns over the decoded path, `*` one segment, `**` any number: `/*/*/info/refs`.
    when_header: name of a header that the client must have sent; lets one of several credentials of a host be chosen.
    """

    authority: str
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    when_header: str = ""


@dataclass(frozen=True, slots=True)
class SetHeader:
    """Replace every field called name, or add it: the client's own value never leaves. value is a secret."""

    match: Match
    name: str
    value: str = field(repr=False)
    grant: str = ""

    def __post_init__(self) -> None:
        _check_field(self.name, self.value)


@dataclass(frozen=True, slots=True)
class AddHeader:
    """Add a field beside what the client sent. value may be a secret."""

    match: Match
    name: str
    value: str = field(repr=False)
    grant: str = ""

    def __post_init__(self) -> None:
        _check_field(self.name, self.value)


@dataclass(frozen=True, slots=True)
class RemoveHeader:
    """Drop every field called name."""

    match: Match
    name: str
    grant: str = ""

    def __post_init__(self) -> None:
        _check_field(self.name, "")


Rule = SetHeader | AddHeader | RemoveHeader


def _check_field(name: str, value: str) -> None:
    """Refuse what could break out of a header field (RFC 9110 §5.5). The message never shows the value."""
    if not name or not all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name) or not name.isascii():
        raise MoatError(f"header name {name!r} is not a token")
    if _FORBIDDEN & set(value) or not value.isprintable() or not value.isascii():
        raise MoatError(f"the value for header {name} holds a control or non-ASCII character")
