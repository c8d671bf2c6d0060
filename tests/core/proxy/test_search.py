from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy import search
from moat.proxy.search import FROM_BYTES, holds

LONG = bytes(FROM_BYTES)


@pytest.mark.parametrize("data", [b"", b"abc", LONG, LONG + b"needl", b"needle" + LONG, LONG + b"needle", b"needle"])
def test_it_says_what_python_says(data: bytes) -> None:
    assert holds(data, b"needle") is (b"needle" in data)


@given(st.binary(max_size=20), st.binary(min_size=1, max_size=4), st.integers(0, FROM_BYTES))
def test_it_says_what_python_says_for_any_bytes(data: bytes, needle: bytes, at: int) -> None:
    assert holds(LONG[:at] + data + LONG[at:], needle) is (needle in LONG[:at] + data + LONG[at:])


def test_without_the_c_librarys_search_pythons_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_memmem", None)

    assert holds(LONG + b"needle", b"needle")
    assert not holds(LONG, b"needle")
