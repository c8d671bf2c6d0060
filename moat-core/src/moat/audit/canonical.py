"""One way to write a value as JSON, so that equal values have equal bytes, and a hash of them means something. Pure.

RFC 8785 (JCS) for what is used here: objects with ASCII keys, lists, text, integers within ±2^53, true, false, null.
Keys are sorted, nothing stands between the parts, text is UTF-8 with the shortest escapes. There are no fractions: how
those are written is where implementations differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_INTEGER = 2**53  # what every reader of JSON keeps whole (RFC 8259 §6)
_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode


def canonical(value: object) -> bytes:
    """Return value's one form. Raises ValueError for what has none."""
    _check(value)
    return _write(value).encode()


def parsed(text: str | bytes) -> Any:
    """Return what text, in its one form, holds. Raises ValueError for JSON in any other form, and for what is none."""
    data = text.encode() if isinstance(text, str) else text
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if canonical(value) != data:
        raise ValueError("it is not written as moat writes it")
    return value


def plain(text: str, limit: int = 512) -> str:
    """Return text as it can be written down, at most limit characters: what is no Unicode is spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()[:limit]


def _check(value: object) -> None:
    match value:
        case None | bool():
            return
        case str():
            value.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
        case int() if -MAX_INTEGER <= value <= MAX_INTEGER:
            return
        case list() | tuple():
            for each in value:
                _check(each)
        case Mapping():
            _check_object(value)
        case _:
            raise ValueError(f"{type(value).__name__} has no canonical form here")


def _check_object(value: Mapping[Any, object]) -> None:
    for name, each in value.items():
        if not isinstance(name, str) or not name.isascii():
            raise ValueError("a key is no ASCII text")
        _check(each)
