from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from moat.trace.values import decode, parsed


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Thing:
    name: str
    kind: Literal["big", "small"] = "big"
    names: tuple[str, ...] = ()
    pairs: tuple[tuple[str, bool], ...] = ()
    count: int | None = None
    ratio: float = 0.0
    inner: Inner | None = None
    env: dict[str, str] | None = None


def test_every_field_comes_back_with_its_type() -> None:
    data = {
        "name": "x", "kind": "small", "names": ["a", "b"], "pairs": [["p", True]], "count": 3, "ratio": 2,
        "inner": {"size": 1}, "env": {"A": "1"},
    }  # fmt: skip

    thing = decode(Thing, data)

    assert thing == Thing("x", "small", ("a", "b"), (("p", True),), 3, 2.0, Inner(1), {"A": "1"})
    assert isinstance(thing.ratio, float)


def test_unknown_fields_are_ignored_and_absent_ones_take_their_default() -> None:
    assert decode(Thing, {"name": "x", "news": [1]}) == Thing("x")


def test_null_is_taken_where_it_may_stand() -> None:
    assert decode(Thing, {"name": "x", "count": None}).count is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([], id="no object"),
        pytest.param({}, id="a required field is missing"),
        pytest.param({"name": None}, id="null where none may stand"),
        pytest.param({"name": "x", "kind": "huge"}, id="not one of the words"),
        pytest.param({"name": "x", "kind": ["big"]}, id="a list for a word"),
        pytest.param({"name": "x", "names": "ab"}, id="a text for a list"),
        pytest.param({"name": "x", "pairs": [["p"]]}, id="a pair of one"),
        pytest.param({"name": "x", "count": True}, id="a truth for a number"),
        pytest.param({"name": "x", "count": "3"}, id="a text for a number"),
        pytest.param({"name": "x", "env": []}, id="a list for an object"),
        pytest.param({"name": "x", "inner": {"size": "s3cr3t"}}, id="wrong inside"),
    ],
)
def test_what_does_not_fit_is_an_error_that_shows_no_value(data: Any) -> None:
    with pytest.raises(ValueError, match=r"Thing|Inner") as caught:
        decode(Thing, data)

    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"", b"{", b"\xff", b"1" * 5_000], ids=["deep", "none", "half", "bytes", "long"]
)
def test_text_that_is_no_json_is_one_kind_of_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(text)
