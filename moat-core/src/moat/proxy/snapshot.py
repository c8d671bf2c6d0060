"""A run's snapshot as JSON and back: how a RunContext with its rules crosses from the daemon to the worker.

    {"run_id", "token_sha256", "policy": {"mode", "allow", "rules": [line, …]}, "is_open", "probe_answer",
     "why_closed", "trace_bodies", "rules": [as in rule_wire, …],
     "endpoints": [as in endpoint_wire, …]}

Errors never quote what was read: it holds secrets.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from moat.api.errors import MoatError
from moat.api.runs import NetworkPolicy, PolicyMode, RunContext
from moat.net.rules import parse_rule, rule_text
from moat.proxy.endpoint_wire import endpoint_from_wire, endpoint_to_wire
from moat.proxy.rule_wire import rule_from_wire, rule_to_wire

Wire: TypeAlias = dict[str, Any]  # one JSON object; from_wire checks what it takes out

_MODES: dict[str, PolicyMode] = {"permissive": "permissive", "strict": "strict"}


class SnapshotError(ValueError):
    """What was read is no snapshot."""


def to_wire(context: RunContext) -> Wire:
    """Return context as a JSON object."""
    return {
        "run_id": context.run_id,
        "token_sha256": context.token_sha256,
        "policy": _policy_to_wire(context.policy),
        "rules": [rule_to_wire(rule) for rule in context.rules],
        "is_open": context.is_open,
        "probe_answer": context.probe_answer,
        "endpoints": [endpoint_to_wire(each, rule_to_wire) for each in context.endpoints],
        "why_closed": context.why_closed,
        "trace_bodies": context.trace_bodies,
    }


def from_wire(wire: Wire) -> RunContext:
    """Return the context that wire holds. Raises SnapshotError."""
    try:
        return RunContext(
            run_id=_text(wire["run_id"]),
            token_sha256=_text(wire["token_sha256"]),
            policy=_policy_from_wire(wire["policy"]),
            rules=tuple(rule_from_wire(rule) for rule in wire["rules"]),
            is_open=wire["is_open"] is True,
            probe_answer=_text(wire["probe_answer"]),
            endpoints=tuple(endpoint_from_wire(each, rule_from_wire) for each in wire.get("endpoints", [])),
            why_closed=_text(wire.get("why_closed", "")),
            trace_bodies=wire.get("trace_bodies") is True,
        )
    except (KeyError, TypeError, ValueError, MoatError):
        raise SnapshotError("this is no snapshot of a run") from None


def _policy_to_wire(policy: NetworkPolicy) -> Wire:
    wire: Wire = {"mode": policy.mode, "allow": list(policy.allow)}
    return wire | {"rules": [rule_text(rule) for rule in policy.rules]} if policy.rules else wire


def _policy_from_wire(wire: Wire) -> NetworkPolicy:
    rules = tuple(parse_rule(line) for line in _texts(wire.get("rules", [])))
    return NetworkPolicy(_MODES[wire["mode"]], _texts(wire["allow"]), rules)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(each) for each in value)
