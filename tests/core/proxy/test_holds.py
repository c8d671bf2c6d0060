from __future__ import annotations

import pytest
from moat.proxy.holds import Holds, Share
from moat.proxy.refusal import Refusal


def test_bodies_share_the_room_of_their_run_and_give_it_back() -> None:
    holds = Holds(100)
    with Share(holds) as first, Share(holds) as second:
        first.at_least(60)
        first.at_least(50)
        second.at_least(40)
        with pytest.raises(Refusal, match="100 bytes") as refused:
            second.at_least(41)
        first.give_back()
        second.at_least(100)

    assert (refused.value.status, refused.value.kind) == (503, "held")
    assert holds.held_bytes == 0


def test_what_two_hold_is_given_back_with_the_last() -> None:
    holds = Holds(100)
    with Share(holds) as share:
        with share:
            assert share.fits(100)
        assert holds.held_bytes == 100

    assert holds.held_bytes == 0


def test_what_another_run_holds_takes_nothing() -> None:
    with Share(Holds(10)) as full, Share(Holds(10)) as other:
        assert full.fits(10)
        assert not full.fits(11)
        assert other.fits(10)
