"""A run's snapshot as JSON and back: how a RunContext with its rules crosses from the daemon to the worker.

    {"run_id", "token_sha256", "policy": {"mode", "allow"}, "is_open", "probe_answer",
     "rules": [{"do": "set_header" | "add_header" | "remove_header", "name", "value", "grant",
                "match": {"authority", "methods", "paths", "when_header"}}]}

Errors never quote what was read: it holds secrets.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from moat.api.errors import MoatError
from moat.api.rules import AddHeader, Match, RemoveHeader, Rule, SetHeader
from moat.api.runs import NetworkPolicy, PolicyMode, RunContext

Wire: TypeAlias = dict[str, Any]  # one JSON object; from_wire checks what it takes out

_KINDS: dict[str, type[Rule]] = {"set_header": SetHeader, "add_header": AddHeader, "remove_header": RemoveHeader}
_MODES: dict[str, PolicyMode] = {"permissive": "permissive", "strict": "strict"}


class SnapshotError(ValueError):
    """What was read is no snapshot."""


def to_wire(context: RunContext) -> Wire:
    """Return context as a JSON object."""
    return {
        "run_id": context.run_id,
        "token_sha256": context.token_sha256,
        "policy": {"mode": context.policy.mode, "allow": list(context.policy.allow)},
        "rules": [_rule_to_wire(rule) for rule in context.rules],
        "is_open": context.is_open,
        "probe_answer": context.probe_answer,
    }


def from_wire(wire: Wire) -> RunContext:
    """Return the context that wire holds. Raises SnapshotError."""
    try:
        return RunContext(
            run_id=_text(wire["run_id"]),
            token_sha256=_text(wire["token_sha256"]),
            policy=NetworkPolicy(_MODES[wire["policy"]["mode"]], _texts(wire["policy"]["allow"])),
            rules=tuple(_rule_from_wire(rule) for rule in wire["rules"]),
            is_open=wire["is_open"] is True,
            probe_answer=_text(wire["probe_answer"]),
        )
    except (KeyError, TypeError, MoatError):
        raise SnapshotError("this is no snapshot of a run") from None


def _rule_to_wire(rule: Rule) -> Wire:
    scope = rule.match
    wire: Wire = {
        "match": {
            "authority": scope.authority,
            "methods": list(scope.methods),
            "paths": list(scope.paths),
            "when_header": scope.when_header,
        },
        "name": rule.name,
        "grant": rule.grant,
    }
    match rule:
        case SetHeader():
            return {"do": "set_header", "value": rule.value, **wire}
        case AddHeader():
            return {"do": "add_header", "value": rule.value, **wire}
        case RemoveHeader():
            return {"do": "remove_header", **wire}


def _rule_from_wire(wire: Wire) -> Rule:
    found = wire["match"]
    match = Match(
        _text(found["authority"]), _texts(found["methods"]), _texts(found["paths"]), _text(found["when_header"])
    )
    name, grant, kind = _text(wire["name"]), _text(wire["grant"]), _KINDS[wire["do"]]
    if kind is RemoveHeader:
        return RemoveHeader(match, name, grant)
    return (SetHeader if kind is SetHeader else AddHeader)(match, name, _text(wire["value"]), grant)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(each) for each in value)
