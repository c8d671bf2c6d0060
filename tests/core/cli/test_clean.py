from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.cli.clean import as_time, shown_size
from support.installation import Installation, installation
from support.terminal import DEADLINE_S, Terminal


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        yield made


def ended(moat: Installation, name: str) -> Path:
    moat.ok("run", "-d", "work", "--runtime", "process", "--name", name, "--", "echo", "hello")
    moat.run("wait", name)
    listed = json.loads(moat.ok("list", "--json"))
    run_id: str = next(run["run_id"] for run in listed if run["name"] == name)
    return moat.home / ".moat" / "runs" / run_id


def test_destroy_forgets_a_run_that_is_over(moat: Installation) -> None:
    folder = ended(moat, "over")

    assert b"removed 1" in moat.run("destroy", "over").stderr

    assert not folder.exists()
    assert b"no run is called 'over'" in moat.run("destroy", "over").stderr


def test_destroy_refuses_a_live_run_and_then_removes_nothing(moat: Installation) -> None:
    folder = ended(moat, "other")
    moat.ok("run", "-d", "work", "--runtime", "process", "--name", "alive", "--", "sleep", "600")

    done = moat.run("destroy", "other", "alive")

    assert done.returncode == 2
    assert b"alive is running" in done.stderr
    assert b"moat stop alive" in done.stderr
    assert folder.exists()
    moat.ok("stop", "alive")


def test_clean_says_what_would_go_and_removes_it_only_after_a_yes(moat: Installation) -> None:
    folder = ended(moat, "old")
    assert b"nothing to clean" in moat.run("clean").stdout  # it ended just now

    (listed, *_) = [each for each in json.loads(moat.ok("clean", "--older-than", "0s", "--dry-run", "--json"))
                    if each["path"] == str(folder)]  # fmt: skip
    assert listed["bytes"] > 0
    refused = moat.run("clean", "--older-than", "0s")
    assert refused.returncode == 2
    assert b"nobody to ask" in refused.stderr
    assert b"run: moat clean --older-than 0s --yes" in refused.stderr
    assert folder.exists()

    assert b"run old" in moat.run("clean", "--older-than", "0s", "--yes").stdout
    assert not folder.exists()


def test_clean_asks_a_person_and_takes_no_for_an_answer(moat: Installation) -> None:
    folder = ended(moat, "asked")
    terminal = Terminal(moat, "clean", "--older-than", "0s", MOAT_NO_PROMPT="0")
    try:
        terminal.read_until("[y/N]")
        terminal.type("n\r")
        assert terminal.process.wait(DEADLINE_S) == 130
        assert folder.exists()
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("age", "time"), [("30d", timedelta(days=30)), ("0s", timedelta(0)), ("2w", timedelta(days=14))]
)
def test_ages_are_read(age: str, time: timedelta) -> None:
    assert as_time(age) == time


@pytest.mark.parametrize("age", ["", "d", "-1d", "1y", "1 d", "9999999d"])
def test_what_is_no_age_is_refused(age: str) -> None:
    with pytest.raises(UsageError, match="is no age"):
        as_time(age)


@pytest.mark.parametrize(("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")])
def test_sizes_are_shown_for_people(size: int, shown: str) -> None:
    assert shown_size(size) == shown
