from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.api.runs import RunSpec
from moat.cli.run_steps import check_json, check_text, checked_command, parse_variables, seconds_of, terminal_of


def test_the_last_of_two_values_counts() -> None:
    assert parse_variables(["A=1", "A=2", "B="]) == {"A": "2", "B": ""}


def test_a_command_needs_its_dashes() -> None:
    with pytest.raises(UsageError, match="after --"):
        checked_command(("ls",), None)


def test_json_is_for_plans() -> None:
    check_json(in_json=True, dry_run=True)
    with pytest.raises(UsageError, match="--dry-run"):
        check_json(in_json=True, dry_run=False)


def test_bytes_that_are_no_text_are_refused_before_anything_is_there() -> None:
    check_text(("é", "\n", ""))
    with pytest.raises(UsageError, match=r"b'a\\xff' is no UTF-8"):
        check_text(("true", "a\udcff"))


def test_a_time_between_snapshots_is_seconds() -> None:
    assert [seconds_of(text) for text in ("", "90s", "10m", "1h")] == [None, 90, 600, 3600]
    for text in ("0s", "10", "9999w", "x"):
        with pytest.raises(UsageError, match="is no time"):
            seconds_of(text)


@pytest.mark.parametrize(
    ("wants", "own", "detached", "size"),
    [
        (None, (33, 99), False, (33, 99)), (None, None, True, None), (True, None, True, (24, 80)),
        (True, (33, 99), True, (33, 99)), (True, None, False, None), (False, (33, 99), False, None),
        (False, (33, 99), True, None),
    ],
)  # fmt: skip
def test_a_run_gets_a_terminal_where_moat_has_one_or_where_it_is_to_have_one(
    wants: bool | None, own: tuple[int, int] | None, detached: bool, size: tuple[int, int] | None
) -> None:
    spec = RunSpec(Path("/w"), ("x",), interactive=wants, origins={"interactive": "moat.yaml"})

    assert terminal_of(spec, own, detached=detached) == size


def test_an_option_for_a_terminal_where_there_can_be_none_is_refused() -> None:
    spec = RunSpec(Path("/w"), ("x",), interactive=True, origins={"interactive": "--tty"})

    with pytest.raises(UsageError, match="input is no terminal") as caught:
        terminal_of(spec, None, detached=False)
    assert "moat run -dt" in caught.value.hint
