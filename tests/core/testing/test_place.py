from __future__ import annotations

import subprocess

import pytest
from moat.testing.place import Place, eventually


def test_a_place_has_moat_and_leaves_nothing() -> None:
    place = Place()
    try:
        assert place.workspace.is_dir()
        place.ok("run", "work", "--runtime", "process", "--name", "one", "--", "true")
        assert place.is_over("one")
        live = place.start("run", "work", "--runtime", "process", "--name", "two", "--", "sleep", "600")
        eventually("it lives", lambda: "two" in place.runs())
        assert not place.is_over("two")
    finally:
        place.close()

    assert live.returncode is not None
    assert not place.root.exists()


def test_what_fails_is_told_with_what_was_said() -> None:
    place = Place()
    try:
        with pytest.raises(AssertionError, match="there is no command"):
            place.ok("no-such-command")
        assert place.run("no-such-command").returncode == 2
    finally:
        place.close()


def test_nothing_of_the_callers_environment_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRAY", "1")
    place = Place()
    try:
        assert "STRAY" not in place.environment()
        assert place.environment({"MINE": "2"})["MINE"] == "2"
        assert subprocess.run(place.command("--version"), check=True, env=place.environment()).returncode == 0
    finally:
        place.close()


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match="waited in vain: rain"):
        eventually("rain", lambda: False, 0.05)
