from __future__ import annotations

from moat.proxy import budget as module
from moat.proxy.budget import MAX_PEERS, FailureBudget


def a_budget(now: list[float]) -> FailureBudget:
    return FailureBudget(allowance=3, refill_s=10.0, clock=lambda: now[0])


def test_a_peer_has_so_many_failures_and_then_none() -> None:
    budget = a_budget([0.0])

    assert [budget.is_spent_by("192.0.2.1") for _ in range(5)] == [False, False, False, True, True]


def test_another_peer_has_its_own() -> None:
    budget = a_budget([0.0])
    for _ in range(5):
        budget.is_spent_by("192.0.2.1")

    assert not budget.is_spent_by("192.0.2.2")


def test_failures_are_forgiven_one_by_one() -> None:
    now = [0.0]
    budget = a_budget(now)
    for _ in range(50):
        budget.is_spent_by("192.0.2.1")
    now[0] = 10.0

    assert [budget.is_spent_by("192.0.2.1") for _ in range(2)] == [False, True]


def test_not_more_than_so_many_peers_are_remembered() -> None:
    budget = a_budget([0.0])
    for number in range(MAX_PEERS + 5):
        budget.is_spent_by(str(number))

    assert len(budget._levels) == module.MAX_PEERS
