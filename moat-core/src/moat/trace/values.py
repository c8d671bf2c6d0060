"""Dataclasses from JSON that another process, or an older version, wrote. Pure; no pydantic: the CLI starts with it.

Unknown keys are ignored and absent ones take their default, so that old and new files and daemons read each other.
"""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parsed(text: bytes) -> object:
    """Return what JSON text holds. Raises ValueError for what is none, also for what is nested beyond all sense."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def decode(kind: type[T], data: object) -> T:
    """Return an instance of kind, a dataclass of plain values, made of a parsed JSON object.

    Raises ValueError, naming the field but never its value, for what does not fit.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{kind.__name__} is not an object")
    values: dict[str, Any] = {}
    for name, (wanted, is_required) in _shape(cast("Any", kind)).items():
        if name in data:
            values[name] = _value(wanted, data[name], f"{kind.__name__}.{name}")
        elif is_required:
            raise ValueError(f"{kind.__name__}.{name} is missing")
    return kind(**values)


@functools.cache
def _shape(kind: Any) -> dict[str, tuple[Any, bool]]:  # a dataclass: mypy holds type[T] for unhashable
    hints = get_type_hints(kind)
    return {
        each.name: (hints[each.name], each.default is MISSING and each.default_factory is MISSING)
        for each in fields(kind)
    }


def _value(wanted: Any, value: object, where: str) -> Any:
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType):
        return _optional(wanted, value, where)
    if origin is Literal:
        return _checked(value in get_args(wanted), value, where)
    if origin is tuple:
        return _tuple(get_args(wanted), value, where)
    if origin is dict:
        return _mapping(get_args(wanted)[1], value, where)
    if is_dataclass(wanted) and isinstance(wanted, type):
        return decode(wanted, value)
    return _plain(wanted, value, where)


def _optional(wanted: Any, value: object, where: str) -> Any:
    if value is None:
        return _checked(type(None) in get_args(wanted), value, where)
    (inner,) = (each for each in get_args(wanted) if each is not type(None))
    return _value(inner, value, where)


def _tuple(items: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is not a list")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_value(items[0], each, where) for each in value)
    _checked(len(value) == len(items), value, where)
    return tuple(_value(item, each, where) for item, each in zip(items, value, strict=True))


def _mapping(item: Any, value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is not an object")
    return {str(key): _value(item, each, where) for key, each in value.items()}


def _plain(wanted: type, value: object, where: str) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int to Python, never to us
    return _checked(isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)), value, where)


def _checked(fits: bool, value: object, where: str) -> Any:
    if not fits:
        raise ValueError(f"{where} has an unexpected value")
    return value
