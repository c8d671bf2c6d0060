"""An endpoint as JSON and back, for snapshots. Rules are written by whoever writes the rest of a snapshot.

    {"where": {"prefix"} | {"name", "port", "tls"} | {"path"}, "grant",
     "how": {"do": "forward", "upstream", "rules"} | {"do": "stream", "upstream", "prelude"}
          | {"do": "respond", "name", "reply": null | {"status", "headers", "body"}} | {"do": "on-host", "port"}}
     upstream: {"address", "tls", "ca", "client_certificate", "alpn", "path"};  bytes are base64

Raises KeyError, TypeError, ValueError and MoatError for what is none; no text of them goes further.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, TypeAlias

from moat.api.endpoints import (
    Endpoint,
    Forward,
    How,
    OnHost,
    ProxyPath,
    Reply,
    Respond,
    Stream,
    Tcp,
    UnixPath,
    Upstream,
    Where,
)
from moat.api.rules import Rule

Wire: TypeAlias = dict[str, Any]  # one JSON object; the readers check what they take out


def endpoint_to_wire(endpoint: Endpoint, rule_to_wire: Callable[[Rule], Wire]) -> Wire:
    """Return endpoint as a JSON object."""
    how = _how_to_wire(endpoint.how, rule_to_wire)
    return {"where": _where_to_wire(endpoint.where), "how": how, "grant": endpoint.grant}


def endpoint_from_wire(wire: Wire, rule_from_wire: Callable[[Wire], Rule]) -> Endpoint:
    """Return the endpoint that wire holds."""
    how = _how_from_wire(wire["how"], rule_from_wire)
    return Endpoint(_where_from_wire(wire["where"]), how, _text(wire["grant"]))


def reply_to_wire(reply: Reply) -> Wire:
    """Return reply as a JSON object."""
    return {"status": reply.status, "headers": [list(pair) for pair in reply.headers], "body": packed(reply.body)}


def reply_from_wire(wire: Wire) -> Reply:
    """Return the reply that wire holds."""
    headers = tuple((_text(name), _text(value)) for name, value in wire["headers"])
    return Reply(_number(wire["status"]), headers, unpacked(wire["body"]))


def packed(data: bytes) -> str:
    """Return bytes as JSON can hold them."""
    return base64.b64encode(data).decode()


def unpacked(text: object) -> bytes:
    """Return what was packed."""
    return base64.b64decode(_text(text), validate=True)


def _where_to_wire(where: Where) -> Wire:
    match where:
        case ProxyPath(prefix):
            return {"prefix": prefix}
        case Tcp(name, port, tls):
            return {"name": name, "port": port, "tls": tls}
        case UnixPath(path):
            return {"path": path}


def _where_from_wire(wire: Wire) -> Where:
    if "prefix" in wire:
        return ProxyPath(_text(wire["prefix"]))
    if "path" in wire:
        return UnixPath(_text(wire["path"]))
    return Tcp(_text(wire["name"]), _number(wire["port"]), wire["tls"] is not False)


def _how_to_wire(how: How, rule_to_wire: Callable[[Rule], Wire]) -> Wire:
    match how:
        case Forward(upstream, rules):
            named = {"upstream": _upstream_to_wire(upstream), "rules": [rule_to_wire(rule) for rule in rules]}
            return {"do": "forward", **named}
        case Stream(upstream, prelude):
            return {"do": "stream", "upstream": _upstream_to_wire(upstream), "prelude": packed(prelude)}
        case Respond(name, reply):
            return {"do": "respond", "name": name, "reply": None if reply is None else reply_to_wire(reply)}
        case OnHost(port):
            return {"do": "on-host", "port": port}


def _how_from_wire(wire: Wire, rule_from_wire: Callable[[Wire], Rule]) -> How:
    match wire["do"]:
        case "forward":
            return Forward(_upstream_from_wire(wire["upstream"]), tuple(map(rule_from_wire, wire["rules"])))
        case "stream":
            return Stream(_upstream_from_wire(wire["upstream"]), unpacked(wire["prelude"]))
        case "respond":
            reply = wire["reply"]
            return Respond(_text(wire["name"]), None if reply is None else reply_from_wire(reply))
        case "on-host":
            return OnHost(_number(wire["port"]))
        case _:
            raise TypeError


def _upstream_to_wire(upstream: Upstream) -> Wire:
    return {
        "address": upstream.address,
        "tls": upstream.tls,
        "ca": upstream.ca,
        "client_certificate": upstream.client_certificate,
        "alpn": list(upstream.alpn),
        "path": upstream.path,
    }


def _upstream_from_wire(wire: Wire) -> Upstream:
    if not isinstance(wire, dict):
        raise TypeError
    alpn = tuple(_text(protocol) for protocol in wire.get("alpn", ()))
    certificates = _text(wire["ca"]), _text(wire["client_certificate"])
    return Upstream(_text(wire["address"]), wire["tls"] is True, *certificates, alpn, _text(wire.get("path", "")))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value
