from __future__ import annotations

import pytest
from moat.api.errors import UsageError
from moat.cli.run_steps import check_json, checked_command, parse_variables


def test_the_last_of_two_values_counts() -> None:
    assert parse_variables(["A=1", "A=2", "B="]) == {"A": "2", "B": ""}


def test_a_command_needs_its_dashes() -> None:
    with pytest.raises(UsageError, match="after --"):
        checked_command(("ls",), None)


def test_json_is_for_plans() -> None:
    check_json(in_json=True, dry_run=True)
    with pytest.raises(UsageError, match="--dry-run"):
        check_json(in_json=True, dry_run=False)
