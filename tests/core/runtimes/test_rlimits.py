from __future__ import annotations

import resource

from moat.api.container import Limits
from moat.runtimes.rlimits import PRLIMIT, limited, unenforced


def refused(limits: Limits, hard_now: int = 4096, *, has_program: bool = True) -> tuple[str, ...]:
    return unenforced(limits, current=lambda _: (1024, hard_now), has_program=lambda _: has_program)


def test_what_needs_a_control_group_is_refused() -> None:
    limits = Limits(memory_bytes=1 << 30, cpus=0.5, pids=100, ulimits={"nofile": (10, 20)})

    assert refused(limits) == ("memory", "cpus", "pids")


def test_a_hard_limit_can_only_be_lowered() -> None:
    assert refused(Limits(ulimits={"nofile": (10, 4096)})) == ()
    assert refused(Limits(ulimits={"nofile": (10, 4097)})) == ("ulimits.nofile",)
    assert refused(Limits(ulimits={"nofile": (10, -1)})) == ("ulimits.nofile",)
    assert refused(Limits(ulimits={"nofile": (-1, -1)}), resource.RLIM_INFINITY) == ()


def test_a_limit_that_nobody_knows_or_that_nothing_sets_is_refused() -> None:
    assert refused(Limits(ulimits={"nproc": (1, 1)})) == ("ulimits.nproc",)
    assert refused(Limits(ulimits={"core": (0, 0)}), has_program=False) == ("ulimits.core",)


def test_nothing_asked_for_changes_nothing() -> None:
    assert refused(Limits()) == ()
    assert limited(("make",), {}) == ("make",)


def test_a_command_is_run_with_its_limits() -> None:
    argv = limited(("make", "test"), {"nofile": (64, 128), "core": (0, -1)})

    assert argv == (PRLIMIT, "--core=0:unlimited", "--nofile=64:128", "--", "make", "test")
