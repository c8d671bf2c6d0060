"""Values and bytes that are nearly right: JSON of any shape, and good files with something about them changed."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70_000),
    st.just(10**400),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ("run_00000000000a", "2026-01-01T00:00:00+00:00", "..", "\0", "\ud800", "api.example.com", "[", "1e999")
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
DEEP = st.sampled_from(
    (b"[" * 5_000, b'{"a":' * 3_000, b"[" * 900 + b"]" * 900, b"\xff\xfe{}", b"", b"null", b"1" * 5_000)
)


@st.composite
def changed(draw: st.DrawFn, good: Any) -> Any:
    """Return a JSON value like good, with a member gone, added, or another thing in its place, at any depth."""
    if isinstance(good, dict) and good and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(good)))
        how = draw(st.sampled_from(("in", "in", "out", "other", "more")))
        if how == "out":
            return {name: value for name, value in good.items() if name != key}
        if how == "more":
            return {**good, draw(st.text(max_size=8)): draw(VALUES)}
        return {**good, key: draw(changed(good[key])) if how == "in" else draw(VALUES)}
    if isinstance(good, list) and good and draw(st.booleans()):
        at = draw(st.integers(0, len(good) - 1))
        return [*good[:at], draw(changed(good[at])), *good[at + 1 :]]
    return draw(VALUES)


def objects(good: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return JSON objects like good."""
    return changed(good).filter(lambda value: isinstance(value, dict))


@st.composite
def cut_up(draw: st.DrawFn, good: bytes) -> bytes:
    """Return bytes like good, with a piece gone, doubled, or other bytes in its place."""
    at = draw(st.integers(0, len(good)))
    end = min(len(good), at + draw(st.integers(0, 9)))
    put = draw(st.one_of(st.binary(max_size=9), st.just(good[at:end] * 2), st.just(b"")))
    return good[:at] + put + good[end:]


def files(good: Any) -> st.SearchStrategy[bytes]:
    """Return what may stand in a file that should hold good, as JSON."""
    text = json.dumps(good).encode()
    values = changed(good).map(lambda value: json.dumps(value).encode())
    return st.one_of(values, values, cut_up(text), st.binary(max_size=60), DEEP)
