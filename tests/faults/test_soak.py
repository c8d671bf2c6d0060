"""A thousand runs, a hundred behind real doors, busy for five minutes: `make soak`. Here, a short version of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from statistics import median

import pytest
from support.living import ended_after

from faults.counts import Counts
from faults.soaking import PROFILES, Size, an_internet, soak

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter a run's namespace"),
]
FIRST = Size(runs=2, doors=1, minutes=0.01, requests=100)  # what is opened once is open then
SHORT = Size(runs=24, doors=3, minutes=0.05, requests=2_000, clients=8, refresh_every_s=1.0)
MEDIUM = Size(runs=1_000, doors=100, minutes=1.5, requests=50_000)
LONG = Size(runs=1_000, doors=100, minutes=5, requests=1_000_000)
GROWTH = 1.10
WANTED = os.environ.get("MOAT_SOAK", "short")  # read here: the suite hides MOAT_… from its tests


async def test_busy_runs_never_see_each_other_s_credentials_and_memory_stays_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    size = {"short": SHORT, "medium": MEDIUM, "long": LONG}[WANTED]
    async with an_internet(tmp_path, size.refresh_every_s) as home:
        with ended_after(home):
            counts = Counts(home)
            await soak(home, FIRST)
            before = counts.now()
            found = await soak(home, size)
            await asyncio.to_thread(counts.become, before)

    memory = [round(mb) for mb in found.memory_mb]
    print(f"{found.requests} requests, {found.changes} changes, {len(found.tokens)} tokens, memory {memory} MB")  # noqa: T201 # for who runs the long one
    assert found.wrong == []
    assert found.requests >= size.requests
    assert found.changes > 0
    assert len(found.tokens) > len(PROFILES)  # they rotated
    if WANTED == "long":  # a short one does not come to the end of its warm-up
        third = len(found.memory_mb) // 3
        assert median(found.memory_mb[-third:]) < GROWTH * median(found.memory_mb[third : 2 * third])
