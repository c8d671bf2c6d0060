"""A rule as JSON and back, for snapshots: `do` says which kind, the rest are the fields of its dataclass by name.

    {"do": "set_header", "match": {"authority", "methods", "paths", "when_header"}, "name", "value", "grant", …}
    {"do": "rewrite_response", "how": {"do": "instead", "status", "body", "content_type"}, "statuses", …}

A field that has a default may be missing: rules grow. Raises KeyError, TypeError and MoatError for what is no rule; no
text of them quotes what was read, which holds secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeAlias

from moat.api.rules import (
    AddHeader,
    CaptureToken,
    Instead,
    Match,
    OnlyPlaceholder,
    OnlyTools,
    Price,
    ReadUsage,
    RemoveHeader,
    ReplaceToken,
    Rewriter,
    RewriteResponse,
    Rule,
    SetHeader,
    Sign,
)

Wire: TypeAlias = dict[str, Any]  # one JSON object; the readers check what they take out
Part: TypeAlias = Rule | Match | Instead | Rewriter | Price

_RULES: dict[str, type[Rule]] = {
    "set_header": SetHeader,
    "add_header": AddHeader,
    "remove_header": RemoveHeader,
    "replace_token": ReplaceToken,
    "only_placeholder": OnlyPlaceholder,
    "only_tools": OnlyTools,
    "rewrite_response": RewriteResponse,
    "capture_token": CaptureToken,
    "sign": Sign,
    "read_usage": ReadUsage,
}
_HOWS: dict[str, type[Instead | Rewriter]] = {"instead": Instead, "rewriter": Rewriter}
_NAMES: dict[type, str] = {kind: name for name, kind in (*_RULES.items(), *_HOWS.items())}


def rule_to_wire(rule: Rule) -> Wire:
    """Return rule as a JSON object."""
    return _to_wire(rule)


def rule_from_wire(wire: Wire) -> Rule:
    """Return the rule that wire holds."""
    rule: Rule = _made(_RULES[wire["do"]], wire)
    return rule


def _to_wire(part: Part) -> Wire:
    wire: Wire = {"do": _NAMES[type(part)]} if type(part) in _NAMES else {}
    return wire | {each.name: _plain(getattr(part, each.name)) for each in fields(part)}


def _plain(value: Any) -> Any:
    if isinstance(value, Match | Instead | Rewriter | Price):
        return _to_wire(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return dict(value) if isinstance(value, Mapping) else value


def _made(kind: type[Any], wire: Wire) -> Any:
    return kind(
        **{each.name: _READERS[str(each.type)](wire[each.name]) for each in fields(kind) if _is_given(each, wire)}
    )


def _is_given(each: Field[Any], wire: Wire) -> bool:
    has_default = each.default is not MISSING or each.default_factory is not MISSING
    return each.name in wire or not has_default


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    if type(value) is not int:  # True is an int too
        raise TypeError
    return value


def _real(value: object) -> float:
    if type(value) not in (int, float):
        raise TypeError
    return float(str(value))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(each) for each in _list(value))


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(_number(each) for each in _list(value))


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _pairs(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError
    return {_text(name): _text(each) for name, each in value.items()}


# By the annotation of a field. What is allowed beyond its type, the rules check themselves.
_READERS: dict[str, Callable[[Any], object]] = {
    "str": _text,
    "int": _number,
    "bool": _flag,
    "Surface": _text,
    "Otherwise": _text,
    "tuple[str, ...]": _texts,
    "tuple[Place, ...]": _texts,
    "tuple[int, ...]": _numbers,
    "tuple[Price, ...]": lambda value: tuple(_made(Price, each) for each in value),
    "float": _real,
    "Mapping[str, str]": _pairs,
    "Match": lambda value: _made(Match, value),
    "Instead | Rewriter": lambda value: _made(_HOWS[value["do"]], value),
}
