"""Where a credential is spent: values that say for which requests, and what is done to them.

A rule is plain data, so that it can cross a socket to the proxy. Providers make rules; only the proxy acts on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from moat.api.errors import MoatError

Place = Literal["header", "path", "query", "body"]

_FORBIDDEN = frozenset("\r\n\0")
_PLACEHOLDER = re.compile(r"[A-Za-z0-9._~-]{8,256}")


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
    """Replace every field called name, or add it: the client's own value never leaves.

    value is a secret, and removed from what comes back, unless is_secret says that everybody may know it (a version).
    """

    match: Match
    name: str
    value: str = field(repr=False)
    grant: str = ""
    is_secret: bool = True

    def __post_init__(self) -> None:
        _check_field(self.name, self.value)


@dataclass(frozen=True, slots=True)
class AddHeader:
    """Add a field beside what the client sent. is_secret: as for SetHeader."""

    match: Match
    name: str
    value: str = field(repr=False)
    grant: str = ""
    is_secret: bool = True

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


@dataclass(frozen=True, slots=True)
class ReplaceToken:
    """Put value where the client wrote placeholder, in the places named and nowhere else.

    placeholder: 8 or more of A-Z a-z 0-9 . _ ~ -, so that no encoding changes it; found in the pair of `Basic` too.
    where: "body" means JSON and form bodies up to limit_bytes, which are held until they are whole; other and larger
    ones keep the placeholder, compressed ones are refused. require: a request without the placeholder, or with a body
    that cannot be searched for it, is refused, so that the client's own key never leaves.
    """

    match: Match
    placeholder: str
    value: str = field(repr=False)
    where: tuple[Place, ...] = ("header",)
    limit_bytes: int = 1_048_576
    require: bool = False
    grant: str = ""

    def __post_init__(self) -> None:
        if _PLACEHOLDER.fullmatch(self.placeholder) is None:
            raise MoatError(f"the placeholder {self.placeholder!r} is not 8 or more of A-Z a-z 0-9 . _ ~ -")
        if not self.where or not set(self.where) <= set(get_args(Place)):
            raise MoatError(f"a placeholder is replaced in {', '.join(get_args(Place))}, not in {self.where!r}")
        _check_value("the placeholder", self.value)


Rule = SetHeader | AddHeader | RemoveHeader | ReplaceToken


def _check_field(name: str, value: str) -> None:
    """Refuse what could break out of a header field (RFC 9110 §5.5). The message never shows the value."""
    if not name or not all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name) or not name.isascii():
        raise MoatError(f"header name {name!r} is not a token")
    _check_value(f"header {name}", value)


def _check_value(what: str, value: str) -> None:
    if _FORBIDDEN & set(value) or not value.isprintable() or not value.isascii():
        raise MoatError(f"the value for {what} holds a control or non-ASCII character")
