"""The words that daemon and worker exchange: each a value, each with one JSON form. No I/O.

    daemon ──▶ Configure · SetRun · Listen (+1 descriptor) · Drop · Ping · Stop       ──▶ worker
    daemon ◀── Ready · Exchanges · Named · Pong                                       ◀── worker

Additive only: unknown fields are ignored, an unknown type is an error at the worker and ignored by the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from typing import Any, Literal, TypeAlias, get_args

from moat.api.runs import ExchangeRecord, RunContext
from moat.proxy.snapshot import SnapshotError, from_wire, to_wire

VERSION = 1
ListenName = Literal["proxy", "http", "tls", "dns-udp", "dns-tcp", "token"]
Wire: TypeAlias = dict[str, Any]  # one JSON object; decode checks what it takes out


@dataclass(frozen=True, slots=True)
class Configure:
    """The installation: its CA and the upstream settings. First, and again when they change."""

    ca_certificate: str
    ca_key: str = field(repr=False)
    roots: str = ""
    resolve: Mapping[str, str] = field(default_factory=dict)
    allow_cidrs: tuple[str, ...] = ()
    proxy: str = field(default="", repr=False)
    no_proxy: tuple[str, ...] = ()


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
class Ping:
    """Asks for a Pong once everything before it is in force."""

    id: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish quickly and exit 0."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is up and listens to its channel."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One finished exchange, to be traced."""

    record: ExchangeRecord


@dataclass(frozen=True, slots=True)
class Exchanges:
    """Finished exchanges, to be traced: `{"rows": [[run_id, at, …], …]}`, values in the order of the fields."""

    records: tuple[ExchangeRecord, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A host was given an address of a run's own, to be kept for a worker that comes after."""

    run_id: str
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a Ping."""

    id: int


ToWorker = Configure | SetRun | Listen | Drop | Ping | Stop
ToDaemon = Ready | Exchange | Exchanges | Named | Pong
_SIMPLE: dict[str, type[Listen | Drop | Ping | Stop | Ready | Named | Pong]] = {
    "listen": Listen, "drop": Drop, "ping": Ping, "stop": Stop, "ready": Ready, "named": Named, "pong": Pong,
}  # fmt: skip
_RECORD_FIELDS = tuple(each.name for each in fields(ExchangeRecord))  # asdict copies deeply: too slow per request
_row = attrgetter(*_RECORD_FIELDS)
_JSON_TYPES = {"int": int, "float": float, "str": str}
_ROW_TYPES = tuple(_JSON_TYPES.get(str(each.type), list) for each in fields(ExchangeRecord))
_GRANTS = _RECORD_FIELDS.index("grants")
_TYPES = {kind: name for name, kind in _SIMPLE.items()}


class MessageError(ValueError):
    """The peer sent something that is none of these messages; the text never quotes its contents."""


def encode(message: ToWorker | ToDaemon) -> Wire:
    """Return a message as one JSON object."""
    match message:
        case Configure():
            upstream = {"roots": message.roots, "resolve": dict(message.resolve),
                        "allow_cidrs": [*message.allow_cidrs],
                        "proxy": message.proxy, "no_proxy": [*message.no_proxy]}  # fmt: skip
            return {"type": "configure", "version": VERSION, "ca_certificate": message.ca_certificate,
                    "ca_key": message.ca_key, "upstream": upstream}  # fmt: skip
        case SetRun(context, names):
            return {"type": "run", "context": to_wire(context), "names": dict(names)}
        case Exchange(record):
            return {"type": "exchange", "record": {name: getattr(record, name) for name in _RECORD_FIELDS}}
        case Exchanges(records):
            return {"type": "exchanges", "rows": [_row(record) for record in records]}
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
        if kind == "exchange":
            return Exchange(_record(wire["record"]))
        if kind == "exchanges":
            return Exchanges(tuple(_record_of(row) for row in wire["rows"]))
        return _simple(wire, str(kind))
    except (KeyError, TypeError, AttributeError, SnapshotError):
        raise MessageError(f"a message of type {str(kind)[:32]!r} is malformed") from None


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
    )


def _record(wire: Wire) -> ExchangeRecord:
    values = {name: value for name, value in wire.items() if name in _RECORD_FIELDS}
    return ExchangeRecord(**(values | {"grants": tuple(values.get("grants", ()))}))


def _record_of(row: list[Any]) -> ExchangeRecord:
    """Return the record in a row; what a newer worker appends is ignored."""
    values = row[: len(_ROW_TYPES)]
    if tuple(map(type, values)) != _ROW_TYPES or not all(isinstance(grant, str) for grant in values[_GRANTS]):
        raise TypeError
    values[_GRANTS] = tuple(values[_GRANTS])
    return ExchangeRecord(*values)


def _simple(wire: Wire, kind: str) -> ToWorker | ToDaemon:
    if kind not in _SIMPLE:
        raise MessageError(f"a message of unknown type {kind[:32]!r}")
    values = {each.name: wire[each.name] for each in fields(_SIMPLE[kind])}
    if any(not isinstance(value, int if name == "id" else str) for name, value in values.items()):
        raise TypeError
    if kind == "listen" and values["name"] not in get_args(ListenName):
        raise MessageError(f"{str(values['name'])[:32]!r} is no listener")
    return _SIMPLE[kind](**values)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(value: Mapping[str, object]) -> dict[str, str]:
    return {_text(name): _text(each) for name, each in value.items()}
