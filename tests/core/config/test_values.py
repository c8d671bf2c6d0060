from __future__ import annotations

import pytest
from moat.config.values import Section, exclude_of, size_of
from pydantic import ValidationError


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
