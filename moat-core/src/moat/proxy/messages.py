"""The words that daemon and worker exchange: each a value, each with one JSON form. No I/O.

    ─▶ worker   Configure · SetRun · Listen (+1 descriptor) · Drop · Answered · Signature · Kept · Ping · Stop
    ─▶ daemon   Ready · Exchanges · Forwarded · Named · Ask · AskSignature · Captured · Uses · Guessed · Pong
    the audit's own socket      ─▶ daemon   Spends      ─▶ worker   Entered

Additive only: unknown fields are ignored, an unknown type is an error at the worker and ignored by the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeAlias

from moat.api.endpoints import Question, Reply
from moat.api.errors import MoatError
from moat.api.http import Headers
from moat.api.runs import RunContext
from moat.api.signing import Signed, Unsigned
from moat.frames import TAIL
from moat.proxy.counts import Counts
from moat.proxy.counts import from_wire as counts_from_wire
from moat.proxy.counts import to_wire as counts_to_wire
from moat.proxy.endpoint_wire import packed, reply_from_wire, reply_to_wire, unpacked
from moat.proxy.entering import Entered, Spends, entering_from_wire, entering_to_wire
from moat.proxy.forwarded import Forwarded, forwarded_from_wire, forwarded_to_wire
from moat.proxy.guessed import Guessed, guessed_from_wire
from moat.proxy.signing_wire import signed_from_wire, signed_to_wire, unsigned_from_wire, unsigned_to_wire
from moat.proxy.snapshot import from_wire, to_wire

VERSION = 3  # 3: exchanges that differ in their times only as numbers, alike first uses in one row
ListenName: TypeAlias = str  # one of _LISTENERS, "tcp:PORT", or "unix:PATH" with the path inside
_LISTENERS = frozenset(("proxy", "http", "tls", "dns-udp", "dns-tcp", "token"))
Wire: TypeAlias = dict[str, Any]  # one JSON object; decode checks what it takes out


@dataclass(frozen=True, slots=True)
class Configure:
    """The installation: its CA and the upstream settings. First, and again when they change.

    first_byte_s: how long an upstream may take for the beginning of an answer; 0 for the worker's own limit.
    upload_idle_s: how long it may take nothing of a request's body, likewise.
    """

    ca_certificate: str
    ca_key: str = field(repr=False)
    roots: str = ""
    resolve: Mapping[str, str] = field(default_factory=dict)
    allow_cidrs: tuple[str, ...] = ()
    proxy: str = field(default="", repr=False)
    no_proxy: tuple[str, ...] = ()
    first_byte_s: float = 0.0
    upload_idle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SetRun:
    """One run, whole; replaces what was known. names: host → its address in 127.107.0.0/16, from an earlier life."""

    context: RunContext
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listen:
    """One socket to serve; the descriptor comes along. run_id: "" for the listener of runs identified by token."""

    run_id: str
    name: ListenName


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the run's listeners and connections and forget it."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to an Ask. reply: None when there is none, for whatever reason."""

    id: int
    reply: Reply | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Signature:
    """The answer to an AskSignature. signed: None when there is none; then problem and status are what the run is told.

    problem: "" for what is in the log only. content_type, body: the answer, where it is of a form of the service's.
    """

    id: int
    signed: Signed | None = field(default=None, repr=False)
    problem: str = ""
    status: int = 502
    content_type: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer to a Captured: stored and in force. problem: why not, "" for done."""

    id: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a Pong once everything before it is in force."""

    id: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish what is under way, in a few seconds, and exit 0."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is up and listens to its channel."""


@dataclass(frozen=True, slots=True)
class Exchanges:
    """Finished exchanges of one run, to be traced. lines: of JSON, one each, with its end (`record.line_of`).

    A Forwarded is read as one.
    """

    run_id: str
    counts: Counts
    lines: bytes


@dataclass(frozen=True, slots=True)
class Named:
    """A host was given an address of a run's own, to be kept for a worker that comes after."""

    run_id: str
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for the provider of an endpoint of a run's. grant: whose provider that is."""

    id: int
    grant: str
    question: Question = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskSignature:
    """A request for the provider of a grant to sign."""

    id: int
    grant: str
    request: Unsigned = field(repr=False)


@dataclass(frozen=True, slots=True)
class Captured:
    """What a token endpoint handed to a run, to be stored for its grant. expires_in: seconds, 0 when not told."""

    id: int
    run_id: str
    grant: str
    tokens: Mapping[str, str] = field(repr=False)
    expires_in: int = 0


@dataclass(frozen=True, slots=True)
class Uses:
    """How often grants of one run were spent again since the last time: grant, authority, count."""

    run_id: str
    counts: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a Ping."""

    id: int


ToWorker = Configure | SetRun | Listen | Drop | Answered | Signature | Kept | Entered | Ping | Stop
ToDaemon = Ready | Exchanges | Forwarded | Named | Ask | AskSignature | Captured | Spends | Uses | Guessed | Pong
_SIMPLE: dict[str, type[Listen | Drop | Ping | Stop | Kept | Ready | Named | Pong]] = {
    "listen": Listen, "drop": Drop, "ping": Ping, "stop": Stop, "kept": Kept, "ready": Ready, "named": Named,
    "pong": Pong,
}  # fmt: skip
_TYPES: dict[type, str] = {kind: name for name, kind in _SIMPLE.items()} | {
    Captured: "captured", Uses: "uses", Guessed: "guessed",
}  # fmt: skip


class MessageError(ValueError):
    """The peer sent something that is none of these messages; the text never quotes its contents."""


def encode(message: ToWorker | ToDaemon) -> Wire:
    """Return a message as one JSON object."""
    match message:
        case Configure():
            upstream = {"roots": message.roots, "resolve": dict(message.resolve),
                        "allow_cidrs": [*message.allow_cidrs],
                        "proxy": message.proxy, "no_proxy": [*message.no_proxy],
                        "first_byte_s": message.first_byte_s,
                        "upload_idle_s": message.upload_idle_s}  # fmt: skip
            return {"type": "configure", "version": VERSION, "ca_certificate": message.ca_certificate,
                    "ca_key": message.ca_key, "upstream": upstream}  # fmt: skip
        case SetRun(context, names):
            return {"type": "run", "context": to_wire(context), "names": dict(names)}
        case Exchanges() | Forwarded():
            return _exchanges_to_wire(message)
        case Ask(number, grant, asked):
            return {"type": "ask", "id": number, "grant": grant, "question": _question_to_wire(asked)}
        case Answered(number, reply):
            return {"type": "answered", "id": number, "reply": None if reply is None else reply_to_wire(reply)}
        case AskSignature() | Signature():
            return _signing_to_wire(message)
        case Spends() | Entered():
            return entering_to_wire(message)
        case _:
            return {"type": _TYPES[type(message)], **asdict(message)}


def decode(wire: Wire) -> ToWorker | ToDaemon:
    """Return the message that wire holds. Raises MessageError."""
    kind = wire.get("type")
    try:
        if kind == "configure":
            return _configure(wire)
        if kind == "run":
            return SetRun(from_wire(wire["context"]), _texts(wire.get("names", {})))
        if kind in _READERS:
            return _READERS[kind](wire)
        return _simple(wire, str(kind))
    except MessageError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError, MoatError):
        raise MessageError(f"a message of type {str(kind)[:32]!r} is malformed") from None


def is_listener(name: str) -> bool:
    """Whether a worker knows what to do with a socket of this name."""
    kind, _, rest = name.partition(":")
    return name in _LISTENERS or (kind == "tcp" and rest.isdecimal()) or (kind == "unix" and rest.startswith("/"))


def _configure(wire: Wire) -> Configure:
    if wire["version"] != VERSION:
        raise MessageError(f"version {wire['version']!r} of the worker's protocol is not known")
    upstream = wire["upstream"]
    return Configure(
        _text(wire["ca_certificate"]),
        _text(wire["ca_key"]),
        _text(upstream["roots"]),
        _texts(upstream["resolve"]),
        tuple(_text(cidr) for cidr in upstream["allow_cidrs"]),
        _text(upstream.get("proxy", "")),
        tuple(_text(pattern) for pattern in upstream.get("no_proxy", ())),
        float(upstream.get("first_byte_s", 0)),
        float(upstream.get("upload_idle_s", 0)),
    )


def _of_endpoints(wire: Wire) -> Ask | Answered:
    number = wire["id"]
    if not isinstance(number, int):
        raise TypeError
    if wire["type"] == "answered":
        return Answered(number, None if wire["reply"] is None else reply_from_wire(wire["reply"]))
    return Ask(number, _text(wire["grant"]), _question_from_wire(wire["question"]))


def _question_to_wire(asked: Question) -> Wire:
    return {"run_id": asked.run_id, "name": asked.name, "method": asked.method, "target": asked.target,
            "headers": [list(pair) for pair in asked.headers], "body": packed(asked.body)}  # fmt: skip


def _question_from_wire(wire: Wire) -> Question:
    run_id, name, method, target = (_text(wire[key]) for key in ("run_id", "name", "method", "target"))
    headers = Headers(tuple((_text(key), _text(value)) for key, value in wire["headers"]))
    return Question(run_id, name, method, target, headers, unpacked(wire["body"]))


def _signing_to_wire(message: AskSignature | Signature) -> Wire:
    if isinstance(message, AskSignature):
        asked = unsigned_to_wire(message.request)
        return {"type": "ask_signature", "id": message.id, "grant": message.grant, "request": asked}
    signed = None if message.signed is None else signed_to_wire(message.signed)
    facts = {"id": message.id, "problem": message.problem, "status": message.status}
    form = {"content_type": message.content_type, "body": message.body}
    return {"type": "signature", **facts, **form, "signed": signed}


def _signing_from_wire(wire: Wire) -> AskSignature | Signature:
    number = wire["id"]
    if type(number) is not int:
        raise TypeError
    if wire["type"] == "ask_signature":
        return AskSignature(number, _text(wire["grant"]), unsigned_from_wire(wire["request"]))
    status = wire["status"]
    if type(status) is not int:
        raise TypeError
    signed = None if wire["signed"] is None else signed_from_wire(wire["signed"])
    form = _text(wire.get("content_type", "")), _text(wire.get("body", ""))
    return Signature(number, signed, _text(wire["problem"]), status, *form)


def _captured(wire: Wire) -> Captured:
    number, seconds = wire["id"], wire["expires_in"]
    if type(number) is not int or type(seconds) is not int:
        raise TypeError
    return Captured(number, _text(wire["run_id"]), _text(wire["grant"]), _texts(wire["tokens"]), seconds)


def _exchanges_to_wire(message: Exchanges | Forwarded) -> Wire:
    if isinstance(message, Forwarded):
        return forwarded_to_wire(message)
    return {"type": "exchanges", "run_id": message.run_id, **counts_to_wire(message.counts), TAIL: message.lines}


def _exchanges(wire: Wire) -> Exchanges:
    lines = wire[TAIL]
    if not isinstance(lines, bytes):
        raise TypeError
    return Exchanges(_text(wire["run_id"]), counts_from_wire(wire), lines)


def _forwarded(wire: Wire) -> Exchanges:
    return Exchanges(*forwarded_from_wire(wire))


def _uses(wire: Wire) -> Uses:
    if any(type(count) is not int or not 0 < count < 2**31 for _, _, count in wire["counts"]):
        raise TypeError
    return Uses(_text(wire["run_id"]), tuple((_text(grant), _text(where), n) for grant, where, n in wire["counts"]))


_READERS: dict[str, Callable[[Wire], ToWorker | ToDaemon]] = {
    "ask": _of_endpoints, "answered": _of_endpoints, "captured": _captured, "uses": _uses,
    "exchanges": _exchanges, "forwarded": _forwarded,
    "ask_signature": _signing_from_wire, "signature": _signing_from_wire,
    "guessed": guessed_from_wire, "spends": entering_from_wire, "entered": entering_from_wire,
}  # fmt: skip


def _simple(wire: Wire, kind: str) -> ToWorker | ToDaemon:
    if kind not in _SIMPLE:
        raise MessageError(f"a message of unknown type {kind[:32]!r}")
    values = {each.name: wire[each.name] for each in fields(_SIMPLE[kind])}
    if any(not isinstance(value, int if name == "id" else str) for name, value in values.items()):
        raise TypeError
    if kind == "listen" and not is_listener(values["name"]):
        raise MessageError(f"{str(values['name'])[:32]!r} is no listener")
    return _SIMPLE[kind](**values)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(value: Mapping[str, object]) -> dict[str, str]:
    return {_text(name): _text(each) for name, each in value.items()}
