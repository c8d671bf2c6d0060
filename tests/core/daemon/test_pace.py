from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from moat.daemon.pace import EARLY_PAUSE_S, MAX_RETRY_S, SHORTEST_S, delay, is_early_allowed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = st.floats(1, 1e7)
ROLLS = st.floats(0, 1)


def test_a_credential_is_renewed_at_its_provider_s_interval_and_a_little_earlier() -> None:
    assert delay(3600, None, 0, 0.0) == 3600
    assert delay(3600, None, 0, 1.0) == 3240


def test_one_that_expires_earlier_is_renewed_before_that() -> None:
    assert delay(3600, 1000, 0, 0.0) == 800
    assert delay(3600, -5, 0, 0.0) == SHORTEST_S


def test_one_that_seems_to_be_at_its_end_right_after_its_renewal_is_left_alone_for_a_while() -> None:
    assert delay(3600, -1e8, 0, 0.0, shortest_s=60.0) == 60.0
    assert delay(3600, 1000, 0, 0.0, shortest_s=60.0) == 800
    assert delay(3600, -1e8, 1, 0.0, shortest_s=60.0) == 5.0


def test_failures_make_it_wait_longer_up_to_a_bound() -> None:
    waits = [delay(86_400, None, failures, 0.0) for failures in range(1, 12)]

    assert waits[:3] == [5.0, 10.0, 20.0]
    assert waits[-1] == MAX_RETRY_S


@given(SECONDS, st.none() | st.floats(-1e6, 1e7), st.integers(0, 10_000), ROLLS)
def test_it_never_waits_for_nothing_for_ever_or_beyond_the_end(
    every_s: float, left_s: float | None, failures: int, roll: float
) -> None:
    found = delay(every_s, left_s, failures, roll)

    assert SHORTEST_S <= found <= max(every_s, 5.0)
    if left_s is not None and left_s > SHORTEST_S / 0.7 and not failures:
        assert found < left_s


def test_rejections_bring_one_renewal_forward_and_not_a_flood() -> None:
    assert is_early_allowed(NOW, None)
    assert not is_early_allowed(NOW, NOW - timedelta(seconds=EARLY_PAUSE_S - 1))
    assert is_early_allowed(NOW, NOW - timedelta(seconds=EARLY_PAUSE_S))


def test_a_clock_that_was_set_back_blocks_nothing() -> None:
    assert is_early_allowed(NOW, NOW + timedelta(days=1))
