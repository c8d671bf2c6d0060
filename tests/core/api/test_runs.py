from __future__ import annotations

from pathlib import Path

from moat.api.rules import Match, SetHeader
from moat.api.runs import Contribution, NetworkPolicy, RunContext, RunSpec

RULE = SetHeader(Match("a"), "Authorization", "s3cr3t")


def test_a_run_is_permissive_unless_it_asks_for_more() -> None:
    assert RunSpec(Path("/w"), ("true",)).policy == NetworkPolicy("permissive", ())


def test_a_context_is_closed_until_somebody_opens_it() -> None:
    assert not RunContext("run_000000000000", "0" * 64, NetworkPolicy()).is_open


def test_neither_rules_nor_probe_answers_are_shown() -> None:
    context = RunContext("run_000000000000", "0" * 64, NetworkPolicy(), (RULE,), probe_answer="s3cr3t-answer")

    assert "s3cr3t" not in repr(context)
    assert "s3cr3t" not in repr(Contribution((RULE,)))


def test_a_spec_does_not_repeat_what_the_user_set() -> None:
    assert "s3cr3t" not in repr(RunSpec(Path("/w"), ("true",), env={"MINE": "s3cr3t"}))
