"""A light dataclass is a dataclass in everything that anybody can see."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest
from moat.api import light
from moat.api.container import Mount
from pydantic import TypeAdapter, ValidationError


@light.dataclass(frozen=True, slots=True)
class Light:
    """What both hold."""

    name: str
    secret: str = field(repr=False)
    size: int = 0
    parts: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Usual:
    """What both hold."""

    name: str
    secret: str = field(repr=False)
    size: int = 0
    parts: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict, compare=False)


@light.dataclass(frozen=True, slots=True)
class Checked:
    """Refuses what it does not like, and says itself how it looks."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("too small")

    def __repr__(self) -> str:
        return "as I say"


KINDS: list[Any] = [Light, Usual]
BOTH = pytest.mark.parametrize("kind", KINDS)


@BOTH
def test_it_takes_values_by_place_and_by_name_and_fills_in_the_rest(kind: Any) -> None:
    one, other = kind("a", "s3cr3t", 3), kind(name="a", secret="s3cr3t", size=3)

    assert one == other
    assert hash(one) == hash(other)
    assert (one.name, one.secret, one.size, one.parts, one.notes) == ("a", "s3cr3t", 3, (), {})
    assert one.notes is not other.notes
    assert kind("a", "s3cr3t", notes={"x": "y"}) == kind("a", "s3cr3t")
    assert one != kind("b", "s3cr3t", 3)
    assert one != ("a", "s3cr3t", 3, (), {})


@BOTH
@pytest.mark.parametrize(
    ("args", "values"),
    [((), {}), (("a",), {}), (("a", "b"), {"name": "c"}), (("a", "b"), {"colour": "red"}), ((1, 2, 3, 4, 5, 6), {})],
)
def test_it_refuses_what_does_not_fit(kind: Any, args: tuple[Any, ...], values: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=kind.__name__ if kind is Light else None):
        kind(*args, **values)


@BOTH
def test_nothing_can_be_changed_or_added(kind: Any) -> None:
    one = kind("a", "s3cr3t")

    with pytest.raises(FrozenInstanceError):
        one.name = "b"
    with pytest.raises((FrozenInstanceError, TypeError)):  # the usual one trips over its own slots here
        one.colour = "red"
    with pytest.raises(FrozenInstanceError):
        del one.name
    assert not hasattr(one, "__dict__")


@BOTH
def test_it_is_shown_without_what_is_hidden(kind: Any) -> None:
    assert repr(kind("a", "s3cr3t")) == f"{kind.__name__}(name='a', size=0, parts=(), notes={{}})"


@BOTH
def test_the_functions_of_dataclasses_take_it(kind: Any) -> None:
    one: Any = kind("a", "s3cr3t", 3, ("b",))

    assert dataclasses.is_dataclass(type(one))
    assert [each.name for each in dataclasses.fields(one)] == ["name", "secret", "size", "parts", "notes"]
    assert dataclasses.replace(one, size=4) == kind("a", "s3cr3t", 4, ("b",))
    assert dataclasses.asdict(one) == {"name": "a", "secret": "s3cr3t", "size": 3, "parts": ("b",), "notes": {}}
    assert copy.deepcopy(one) == copy.copy(one) == one
    assert kind.__match_args__ == ("name", "secret", "size", "parts", "notes")


@BOTH
def test_pydantic_reads_it(kind: Any) -> None:
    adapter = TypeAdapter(kind)

    assert adapter.validate_python({"name": "a", "secret": "s3cr3t", "parts": ["b"]}) == kind(
        "a", "s3cr3t", parts=("b",)
    )
    with pytest.raises(ValidationError):
        adapter.validate_python({"name": "a"})


def test_what_a_class_says_itself_goes_before_and_its_check_is_made() -> None:
    assert repr(Checked(1)) == "as I say"
    with pytest.raises(ValueError, match="too small"):
        Checked(-1)


def test_a_dataclass_may_inherit_from_it() -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class More(Mount):
        label: str = ""

    assert More("/a", "/b", label="c").label == "c"  # type: ignore[arg-type] # any value will do here
    assert dataclasses.replace(More("/a", "/b"), label="d").target == "/b"  # type: ignore[arg-type] # as above


def test_its_methods_are_shared_by_all_that_are_made() -> None:
    assert inspect.getattr_static(Light, "__init__") is inspect.getattr_static(Checked, "__init__")
