"""A run's snapshot as JSON and back: how a RunContext with its rules crosses from the daemon to the worker.

    {"run_id", "token_sha256", "policy": {"mode", "allow", "rules": [line, …]}, "is_open", "probe_answer",
     "rules": [{"do": "set_header" | "add_header" | "remove_header", "name", "value", "is_secret", "grant",
                "match": {"authority", "methods", "paths", "when_header"}},
               {"do": "replace_token", "placeholder", "value", "where", "limit_bytes", "require", "grant", "match"}],
     "endpoints": [{"prefix", "upstream": {"address", "tls", "ca", "client_certificate"}, "rules", "grant"}]}

Errors never quote what was read: it holds secrets.
"""

from __future__ import annotations

from typing import Any, TypeAlias, get_args

from moat.api.endpoints import Endpoint, Forward, ProxyPath, Upstream
from moat.api.errors import MoatError
from moat.api.rules import AddHeader, Match, Place, RemoveHeader, ReplaceToken, Rule, SetHeader
from moat.api.runs import NetworkPolicy, PolicyMode, RunContext
from moat.net.rules import parse_rule, rule_text

Wire: TypeAlias = dict[str, Any]  # one JSON object; from_wire checks what it takes out

_KINDS: dict[str, type[SetHeader | AddHeader | RemoveHeader]] = {
    "set_header": SetHeader,
    "add_header": AddHeader,
    "remove_header": RemoveHeader,
}
_MODES: dict[str, PolicyMode] = {"permissive": "permissive", "strict": "strict"}


class SnapshotError(ValueError):
    """What was read is no snapshot."""


def to_wire(context: RunContext) -> Wire:
    """Return context as a JSON object."""
    return {
        "run_id": context.run_id,
        "token_sha256": context.token_sha256,
        "policy": _policy_to_wire(context.policy),
        "rules": [_rule_to_wire(rule) for rule in context.rules],
        "is_open": context.is_open,
        "probe_answer": context.probe_answer,
        "endpoints": [_endpoint_to_wire(endpoint) for endpoint in context.endpoints],
    }


def from_wire(wire: Wire) -> RunContext:
    """Return the context that wire holds. Raises SnapshotError."""
    try:
        return RunContext(
            run_id=_text(wire["run_id"]),
            token_sha256=_text(wire["token_sha256"]),
            policy=_policy_from_wire(wire["policy"]),
            rules=tuple(_rule_from_wire(rule) for rule in wire["rules"]),
            is_open=wire["is_open"] is True,
            probe_answer=_text(wire["probe_answer"]),
            endpoints=tuple(_endpoint_from_wire(each) for each in wire.get("endpoints", [])),
        )
    except (KeyError, TypeError, MoatError):
        raise SnapshotError("this is no snapshot of a run") from None


def _policy_to_wire(policy: NetworkPolicy) -> Wire:
    wire: Wire = {"mode": policy.mode, "allow": list(policy.allow)}
    return wire | {"rules": [rule_text(rule) for rule in policy.rules]} if policy.rules else wire


def _policy_from_wire(wire: Wire) -> NetworkPolicy:
    rules = tuple(parse_rule(line) for line in _texts(wire.get("rules", [])))
    return NetworkPolicy(_MODES[wire["mode"]], _texts(wire["allow"]), rules)


def _rule_to_wire(rule: Rule) -> Wire:
    scope = rule.match
    wire: Wire = {
        "match": {
            "authority": scope.authority,
            "methods": list(scope.methods),
            "paths": list(scope.paths),
            "when_header": scope.when_header,
        },
        "grant": rule.grant,
    }
    match rule:
        case ReplaceToken():
            named = {"placeholder": rule.placeholder, "where": list(rule.where), "limit_bytes": rule.limit_bytes}
            return {"do": "replace_token", "value": rule.value, "require": rule.require, **named, **wire}
        case _:
            return _header_rule_to_wire(rule, {"name": rule.name, **wire})


def _header_rule_to_wire(rule: SetHeader | AddHeader | RemoveHeader, wire: Wire) -> Wire:
    match rule:
        case SetHeader():
            return {"do": "set_header", "value": rule.value, "is_secret": rule.is_secret, **wire}
        case AddHeader():
            return {"do": "add_header", "value": rule.value, "is_secret": rule.is_secret, **wire}
        case RemoveHeader():
            return {"do": "remove_header", **wire}


def _rule_from_wire(wire: Wire) -> Rule:
    found = wire["match"]
    match = Match(
        _text(found["authority"]), _texts(found["methods"]), _texts(found["paths"]), _text(found["when_header"])
    )
    if wire["do"] == "replace_token":
        return _replace_token(match, wire)
    name, grant, kind = _text(wire["name"]), _text(wire["grant"]), _KINDS[wire["do"]]
    if kind is RemoveHeader:
        return RemoveHeader(match, name, grant)
    is_secret = wire.get("is_secret") is not False
    return (SetHeader if kind is SetHeader else AddHeader)(match, name, _text(wire["value"]), grant, is_secret)


def _replace_token(match: Match, wire: Wire) -> ReplaceToken:
    places: dict[str, Place] = {place: place for place in get_args(Place)}
    where = tuple(places[place] for place in _texts(wire["where"]))
    return ReplaceToken(match, _text(wire["placeholder"]), _text(wire["value"]), where, int(wire["limit_bytes"]),
                        wire["require"] is True, _text(wire["grant"]))  # fmt: skip


def _endpoint_to_wire(endpoint: Endpoint) -> Wire:
    upstream = endpoint.how.upstream
    return {
        "prefix": endpoint.where.prefix,
        "upstream": {
            "address": upstream.address,
            "tls": upstream.tls,
            "ca": upstream.ca,
            "client_certificate": upstream.client_certificate,
        },
        "rules": [_rule_to_wire(rule) for rule in endpoint.how.rules],
        "grant": endpoint.grant,
    }


def _endpoint_from_wire(wire: Wire) -> Endpoint:
    found = wire["upstream"]
    upstream = Upstream(
        _text(found["address"]), found["tls"] is True, _text(found["ca"]), _text(found["client_certificate"])
    )
    how = Forward(upstream, tuple(_rule_from_wire(rule) for rule in wire["rules"]))
    return Endpoint(ProxyPath(_text(wire["prefix"])), how, _text(wire["grant"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(each) for each in value)
