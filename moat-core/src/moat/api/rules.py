"""Where a credential is spent: values that say for which requests, and what is done to them.

A rule is plain data, so that it can cross a socket to the proxy. Providers make rules; only the proxy acts on them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from moat.api.errors import MoatError

Place = Literal["header", "path", "query", "body"]
Surface = Literal["header", "query"]
Otherwise = Literal["pass", "refuse"]

_FORBIDDEN = frozenset("\r\n\0")
_PLACEHOLDER = re.compile(r"[A-Za-z0-9._~-]{8,256}")


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is for. Every part must hold; an empty part holds always.

    authority: exact host, or host:port; without a port it means https on 443 only. Never a pattern (but see Sign).
    methods: upper case. paths: patterns over the decoded path, `*` one segment, `**` any number: `/*/*/info/refs`.
    when_header, unless_header: name of a header that the client must, or must not, have sent; lets one of several
    credentials of a host be chosen.
    any_port: for the other ports of the host too, https only. Of two rules about one thing (a header's name, a
    placeholder, answers of the same paths), the one that names the port holds there.
    """

    authority: str
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    when_header: str = ""
    any_port: bool = False
    unless_header: str = ""


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
    """Add a field beside what the client sent, unless it is one of the values there. is_secret: as for SetHeader."""

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


@dataclass(frozen=True, slots=True)
class OnlyPlaceholder:
    """Refuse a request that carries anything but placeholder there: a key of the client's own never leaves.

    name: of a header field, or of a query parameter; a request without it is let through. In a field, placeholder may
    stand alone, after a scheme, or as the password of `Basic`.
    """

    match: Match
    name: str
    placeholder: str
    where: Surface = "header"
    grant: str = ""

    def __post_init__(self) -> None:
        if self.where not in get_args(Surface) or not self.name:
            raise MoatError(f"a placeholder is asked for in a header or the query, not in {self.where!r}")
        if _PLACEHOLDER.fullmatch(self.placeholder) is None:
            raise MoatError(f"the placeholder {self.placeholder!r} is not 8 or more of A-Z a-z 0-9 . _ ~ -")


@dataclass(frozen=True, slots=True)
class OnlyTools:
    """Refuse to call a tool of an MCP server (JSON-RPC, `tools/call`) that tools does not name, in a batch or alone.

    A body that is not JSON, too long, or says something twice is refused too: nobody can tell what it would call.
    """

    match: Match
    tools: tuple[str, ...]
    limit_bytes: int = 4_194_304
    grant: str = ""


@dataclass(frozen=True, slots=True)
class Instead:
    """How: the whole answer is this one."""

    status: int
    body: str
    content_type: str = "application/json"

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599 or self.status in (204, 206, 304):
            raise MoatError(f"an answer with a body cannot have the status {self.status}")
        _check_value("content-type", self.content_type)


@dataclass(frozen=True, slots=True)
class Rewriter:
    """How: by a pure function of a plugin's, `(head, body, parameters) -> (head, body)`, which runs in the proxy.

    name: an entry point of the group `moat.rewriters`. body: without content coding. An exception is a 502.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RewriteResponse:
    """Change an answer before the client gets it. It is held until it is whole; what comes of it is scrubbed like any.

    statuses, kinds: which answers; empty means every status, and every kind but event streams and gRPC. Answers
    without a body pass. otherwise: what becomes of those that fit, whose body is needed, and that cannot be held:
    longer than limit_bytes, a part only, in an unknown coding, not whole within a minute, or more than the run may have
    held at once. "pass": as they came; "refuse": 502.
    """

    match: Match
    how: Instead | Rewriter
    statuses: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ("application/json",)
    limit_bytes: int = 1_048_576
    otherwise: Otherwise = "pass"
    grant: str = ""

    def __post_init__(self) -> None:
        if self.otherwise not in get_args(Otherwise):
            raise MoatError(f"an answer that cannot be rewritten is passed or refused, not {self.otherwise!r}")


@dataclass(frozen=True, slots=True)
class CaptureToken:
    """Keep what a token endpoint hands out: the client gets placeholders, the grant's provider the tokens.

    request: fields that the JSON or form body of the request must have, with these values, or it is refused:
    {"grant_type": "refresh_token", "refresh_token": PLACEHOLDER}. A login of the client's own then never replaces the
    grant. ReplaceToken puts the real value in. tokens: what the client gets for each field of the answer:
    {"access_token": PLACEHOLDER}; a dot leads into an object. They are stored (`CredentialProvider.captured`) and in
    force in every run before the client has its answer; where that fails, it gets 502 or 503. A field that looks like
    a token and is not named in tokens or shown is a 502 too.
    """

    match: Match
    grant: str
    request: Mapping[str, str]
    tokens: Mapping[str, str]
    shown: tuple[str, ...] = ()
    limit_bytes: int = 262_144

    def __post_init__(self) -> None:
        if not self.match.paths or not self.grant or not self.tokens:
            raise MoatError("a token is captured at a path, for a grant, from a field: one of these is missing")
        for placeholder in self.tokens.values():
            _check_value("a placeholder", placeholder)


@dataclass(frozen=True, slots=True)
class Sign:
    """Have the request signed anew by the grant's provider (`CredentialProvider.sign`), which has its key.

    match.authority may be `*.host` here, and nowhere else: every host below it, https on 443. declared: a header by
    which clients say what their body is; where it is sent, the body passes as it comes. Else it is held, up to
    limit_bytes, for its SHA-256 to be known; a longer one is refused.
    """

    match: Match
    grant: str
    declared: str = ""
    limit_bytes: int = 16_777_216

    def __post_init__(self) -> None:
        if not self.grant:
            raise MoatError("a request is signed for a grant, and none is named")


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in US dollars for a million tokens. cached: read from a cache; written: into it.

    model: the name without its date: `big-1` is for `big-1`, `big-1-latest` and `big-1-20260131`.
    """

    model: str
    input: float
    output: float
    cached: float
    written: float = 0.0


@dataclass(frozen=True, slots=True)
class ReadUsage:
    """Read from an answer which model gave it and for how many tokens, for the trace. Changes and holds up nothing.

    Each of the names is a dotted path into the answer's JSON, or into that of an event of a stream (SSE); of several
    that are there the first counts, and of several events the latest. cached, written: of a prompt cache. is_apart:
    whether input leaves these two out. prices: an estimate is all that can be made of them. Answers longer than 256 KiB
    and longer events are not read, nor what says nothing of `usage`.
    """

    match: Match
    model: tuple[str, ...] = ("model",)
    input: tuple[str, ...] = ("usage.input_tokens",)
    output: tuple[str, ...] = ("usage.output_tokens",)
    cached: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    is_apart: bool = False
    prices: tuple[Price, ...] = ()
    grant: str = ""


Rule = (
    SetHeader
    | AddHeader
    | RemoveHeader
    | ReplaceToken
    | OnlyPlaceholder
    | OnlyTools
    | RewriteResponse
    | CaptureToken
    | Sign
    | ReadUsage
)


def _check_field(name: str, value: str) -> None:
    """Refuse what could break out of a header field (RFC 9110 §5.5). The message never shows the value."""
    if not name or not all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name) or not name.isascii():
        raise MoatError(f"header name {name!r} is not a token")
    _check_value(f"header {name}", value)


def _check_value(what: str, value: str) -> None:
    if _FORBIDDEN & set(value) or not value.isprintable() or not value.isascii():
        raise MoatError(f"the value for {what} holds a control or non-ASCII character")
