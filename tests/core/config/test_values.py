from __future__ import annotations

import pytest
from moat.config.values import HostPorts, Section, exclude_of, size_of, time_of
from pydantic import Field, ValidationError


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("16m", 16 << 20), ("1G", 1 << 30), ("2kb", 2048)])
def test_a_size_is_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "m", "1t", "1.5g", "-1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write bytes"):
        size_of(text)


def test_a_section_takes_no_key_that_it_does_not_know_and_repeats_nothing() -> None:
    with pytest.raises(ValidationError) as caught:
        Section.model_validate({"token": "s3cr3t"})

    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("text", ["!a", "../a"])
def test_a_pattern_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"mean nothing|no path"):
        exclude_of(text)
    assert exclude_of(3) == 3


class Some(Section):
    ports: HostPorts = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("value", "ports"),
    [(["5432", "80"], {"5432": 5432, "80": 80}), ({"db": "5432"}, {"db": 5432}), ({"5432": "5432"}, {"5432": 5432})],
)
def test_ports_of_this_machine_are_a_list_or_have_names(value: object, ports: dict[str, int]) -> None:
    assert Some.model_validate({"ports": value}).ports == ports


@pytest.mark.parametrize("value", [["0"], ["70000"], ["x"], {"DB": "1"}, {"a.b": "1"}, {"-": "1"}, "5432", [["1"]]])
def test_what_is_no_port_is_an_error(value: object) -> None:
    with pytest.raises(ValidationError):
        Some.model_validate({"ports": value})


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200)])
def test_a_time_has_a_unit(text: str, seconds: int) -> None:
    assert time_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "1d", "1.5m", "-1s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a number"):
        time_of(text)
