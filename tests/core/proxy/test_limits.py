from __future__ import annotations

from dataclasses import asdict

from moat.proxy.limits import Limits


def test_every_stage_has_a_limit_and_none_is_for_the_whole() -> None:
    limits = asdict(Limits())

    assert all(value > 0 for value in limits.values())
    assert limits["first_byte_s"] >= 300  # models think for minutes
