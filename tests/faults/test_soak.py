"""A thousand runs, a hundred behind real doors, busy for five minutes: `make soak`. Here, a short version of it."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

import pytest
from support.living import ended_after

from faults.soaking import Size, an_internet, soak

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter a run's namespace"),
]
SHORT = Size(runs=24, doors=3, minutes=0.05, requests=2_000, clients=8)
MEDIUM = Size(runs=1_000, doors=100, minutes=1.5, requests=50_000)
LONG = Size(runs=1_000, doors=100, minutes=5, requests=1_000_000)
GROWTH = 1.10
WANTED = os.environ.get("MOAT_SOAK", "short")  # read here: the suite hides MOAT_… from its tests


async def test_busy_runs_never_see_each_other_s_credentials_and_memory_stays_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    size = {"short": SHORT, "medium": MEDIUM, "long": LONG}[WANTED]
    async with an_internet(tmp_path) as home:
        with ended_after(home):
            found = await soak(home, size)

    print(f"{found.requests} requests, {found.changes} changes, memory {[round(mb) for mb in found.memory_mb]} MB")  # noqa: T201 # for who runs the long one
    assert found.wrong == []
    assert found.requests >= size.requests
    assert found.changes > 0
    if WANTED == "long":  # a short one does not come to the end of its warm-up
        third = len(found.memory_mb) // 3
        assert median(found.memory_mb[-third:]) < GROWTH * median(found.memory_mb[third : 2 * third])
