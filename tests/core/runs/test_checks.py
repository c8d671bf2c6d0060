from __future__ import annotations

from moat.runs.checks import Check


def test_a_check_that_is_fine_has_nothing_to_type() -> None:
    assert Check("disk", "ok", "1.0 GiB free").hint == ""
