from __future__ import annotations

import pytest
from moat.api.errors import UsageError
from moat.ids import NAME, checked_name, checked_profile, checked_run_id, new_name, new_run_id, new_token


def test_what_is_made_passes_its_own_check() -> None:
    assert checked_run_id(new_run_id())
    assert checked_name(new_name(), "run")


def test_ids_and_tokens_do_not_repeat() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100
    assert len({new_token() for _ in range(100)}) == 100


def test_a_token_is_256_bits_of_hex() -> None:
    assert len(bytes.fromhex(new_token())) == 32


@pytest.mark.parametrize(
    "text", ["", "run_", "run_00000000000", "run_00000000000G", "run_000000000000\n", "../run_000000000000"]
)
def test_what_is_no_run_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_run_id(text)

    assert caught.value.hint == "run: moat list"


@pytest.mark.parametrize("text", ["a", "0", "my-run_2", "x" * 63])
def test_names_a_user_would_type_pass(text: str) -> None:
    assert checked_name(text, "run") == text


@pytest.mark.parametrize("text", ["", "-a", "_a", "A", "a.b", "a/b", "..", "a b", "a\n", "x" * 64, "é"])
def test_names_that_could_be_paths_or_options_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot name a profile"):
        checked_name(text, "profile")
    assert NAME.fullmatch(text) is None


def test_a_profile_is_a_name_and_the_default_has_none() -> None:
    assert [checked_profile(text) for text in ("", "default", "work")] == ["", "", "work"]
    with pytest.raises(UsageError, match="cannot name a profile"):
        checked_profile("../work")
