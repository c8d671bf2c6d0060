from __future__ import annotations

from dataclasses import asdict, fields

from moat.proxy.limits import Limits


def test_every_stage_has_a_limit_and_none_is_for_the_whole() -> None:
    limits = asdict(Limits())

    assert all(value > 0 for value in limits.values())
    assert limits["first_byte_s"] >= 300  # models think for minutes


def test_no_limit_is_for_a_whole_exchange() -> None:
    stages = {"idle_s", "head_s", "unidentified_s", "hurried_s", "handshake_s", "body_idle_s", "linger_s",
              "linger_bytes", "held_bytes", "upload_idle_s", "first_byte_s", "answer_head_s", "upgrade_idle_s",
              "half_idle_s", "guess_delay_s"}  # fmt: skip

    assert {each.name for each in fields(Limits)} == stages  # a new one is for a stage too: say so here
