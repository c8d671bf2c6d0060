from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.daemon.protocol import CAPABILITIES, Health
from moat.daemon.versions import rank, should_replace

ORDERED = ("0.1.0.dev1", "0.1.0a1", "0.1.0b2", "0.1.0rc1", "0.1.0", "0.1.1.dev3", "0.1.1", "0.2", "0.10.0", "1.0")


def a_health(version: str, runs: int = 1, capabilities: tuple[str, ...] = CAPABILITIES) -> Health:
    return Health(1, version, 19080, runs, "", 1.0, 2, capabilities)


def test_versions_are_ordered_as_people_expect() -> None:
    for older, newer in itertools.combinations(ORDERED, 2):
        assert should_replace(newer, a_health(older)), (older, newer)
        assert not should_replace(older, a_health(newer)), (older, newer)


@pytest.mark.parametrize("version", ["", "unknown", "v1", "1.0-dirty", "1..2"])
def test_what_is_no_version_replaces_nothing_and_is_not_replaced(version: str) -> None:
    assert rank(version) is None
    assert not should_replace(version, a_health("0.1.0"))
    assert not should_replace("9.0", a_health(version))


def test_a_daemon_that_cannot_hand_its_runs_over_is_replaced_only_without_runs() -> None:
    assert not should_replace("9.0", a_health("0.1.0", 1, ("doors",)))
    assert should_replace("9.0", a_health("0.1.0", 0, ("doors",)))


def test_a_daemon_with_values_in_its_memory_only_is_not_replaced_while_their_runs_live() -> None:
    assert not should_replace("9.0", replace(a_health("0.1.0", 2), bound_run_count=1))
    assert should_replace("9.0", replace(a_health("0.1.0", 2), bound_run_count=0))


@given(st.sampled_from(ORDERED), st.sampled_from(ORDERED))
def test_two_versions_never_replace_each_other(one: str, other: str) -> None:
    assert not (should_replace(one, a_health(other)) and should_replace(other, a_health(one)))


def test_zeros_at_the_end_make_no_difference() -> None:
    assert rank("1.0.0") == rank("1") == rank("1.0+local")
