from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from moat.paths import Home, private_folder
from moat.runs.keeping import keep_snapshots
from moat.runs.snapshots import Snapshots


class Pauses:
    """Sleeps that end at once; before each something happens, and after the last the keeping is over."""

    def __init__(self, *events: object) -> None:
        self.events = list(events)
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        if not self.events:
            raise asyncio.CancelledError
        event = self.events.pop(0)
        assert callable(event)
        event()


async def test_a_workspace_is_kept_when_it_has_changed_and_a_failure_is_got_over(tmp_path: Path) -> None:
    home, work = Home(private_folder(tmp_path / "moat")), tmp_path / "work"
    work.mkdir()
    pauses = Pauses(
        lambda: (work / "a").write_text("1"),
        lambda: None,
        lambda: work.rename(tmp_path / "away"),
        lambda: (tmp_path / "away").rename(work),
        lambda: (work / "a").write_text("2"),
    )

    with pytest.raises(asyncio.CancelledError):
        await keep_snapshots(home, work, "calm-otter", 60, pauses)

    assert [each.message for each in Snapshots(home, work).all()] == ["during calm-otter"] * 2
    assert pauses.asked == [60] * 6
