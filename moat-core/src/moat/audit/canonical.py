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
quoted = json.encoder.encode_basestring  # of one text, the same form as in canonical


def canonical(value: object) -> bytes:
    """Return value's one form. Raises ValueError for what has none."""
    try:
        return _text(value).encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


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


def _text(value: object) -> str:
    """Return value's one form, but for text that is no Unicode. json's own encoder checks less and takes longer."""
    if isinstance(value, str):
        return quoted(value)
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if -MAX_INTEGER <= value <= MAX_INTEGER:
            return int.__repr__(value)
        case list() | tuple():
            return f"[{','.join(map(_text, value))}]"
        case Mapping():
            return _object(value)
        case _:
            raise ValueError(f"{type(value).__name__} has no canonical form here")


def _object(value: Mapping[Any, object]) -> str:
    if not all(isinstance(name, str) and name.isascii() for name in value):
        raise ValueError("a key is no ASCII text")
    return f"{{{','.join([f'{quoted(name)}:{_text(value[name])}' for name in sorted(value)])}}}"
