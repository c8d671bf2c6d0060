from __future__ import annotations

import sys
from pathlib import Path

import pytest
from moat.demo import story
from moat.demo.claims import judge
from moat.demo.story import leaks, play, python_inside, stage
from moat.paths import Home


@pytest.mark.bubblewrap
@pytest.mark.timeout(90)
def test_everything_that_the_demo_claims_is_so() -> None:
    with stage() as home:
        seen = play(home)

    assert [claim for claim in judge(seen) if claim.failure] == []
    assert len(judge(seen)) == 7
    assert not home.root.parent.exists()


def test_nothing_is_left_when_it_fails() -> None:
    homes: list[Home] = []

    def fail() -> None:
        with stage() as home:
            homes.append(home)
            home.root.mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert not homes[0].root.parent.exists()


def test_a_key_in_the_clear_is_found_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x").write_text("a s3cr3t b")
    (tmp_path / "fine").write_text("nothing")

    assert leaks(Home(tmp_path), "s3cr3t") == ["runs/x"]


def test_the_systems_python_needs_no_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")

    assert python_inside() == ("python3", [])


def test_a_python_elsewhere_is_shown_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "bin" / f"python3.{sys.version_info.minor}"
    python.parent.mkdir()
    python.touch()
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))

    assert python_inside() == (str(python), ["--mount", f"{tmp_path}:{tmp_path}:ro"])


def test_the_users_own_settings_do_not_get_in(tmp_path: Path) -> None:
    env = {"HOME": "/home/x", "PATH": "/bin", "MOAT_HOME": "/home/x/.moat", "MOAT_IMAGE": "y", "GITHUB_TOKEN": "s3cr3t"}

    given = story._environment(Home(tmp_path), env)

    assert given["MOAT_HOME"] == str(tmp_path)
    assert given["MOAT_KEYRING_BACKEND"] == "file"
    assert not {"MOAT_IMAGE", "GITHUB_TOKEN"} & set(given)
