from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.runtimes import Readiness
from moat.cli.main import run
from moat.demo import story
from moat.demo.claims import Observed
from moat.paths import Home
from moat.runtimes.bubblewrap import Bubblewrap

from core.demo.test_claims import FINE


class Stage:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.readiness = Readiness(True, "sealed")
        self.seen = FINE
        self.played = 0

        async def readiness(runtime: Bubblewrap, image: str) -> Readiness:
            return self.readiness

        def play(home: Home) -> Observed:
            self.played += 1
            return self.seen

        @contextlib.contextmanager
        def stage() -> Iterator[Home]:
            yield Home(tmp_path)

        monkeypatch.setattr(Bubblewrap, "readiness", readiness)
        monkeypatch.setattr(story, "play", play)
        monkeypatch.setattr(story, "stage", stage)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    return Stage(monkeypatch, tmp_path)


def test_the_story_has_a_mark_for_each_claim_and_ends_with_the_trace(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo"]) == 0

    out = capfd.readouterr().out
    assert out.count("✓") >= 7
    assert "✗" not in out
    assert "https://api.acme.example/" in out


def test_what_is_not_so_is_shown_and_the_exit_code_says_it(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.seen = replace(FINE, visitors=2)

    assert run(["demo"]) == 1

    out = capfd.readouterr().out
    assert out.count("✗") == 1
    assert "2 connections came through" in out
    assert "1 of 7 claims do not hold" in out


def test_where_bubblewrap_is_missing_it_says_the_one_line_to_run(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    stage.readiness = Readiness(False, "bubblewrap is not installed", "run: apt-get install bubblewrap")

    assert run(["demo"]) == 1

    assert stage.played == 0
    assert "hint: run: apt-get install bubblewrap" in capfd.readouterr().err
