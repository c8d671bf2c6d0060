from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
import pytest
from moat.api.credentials import Credential
from moat.api.runs import RunInfo
from moat.cli import known
from moat.paths import Home
from moat.store.credentials import CredentialStore
from moat.trace.store import RunStore

PARAM = click.Option(["--any"])
OVER = RunInfo("run_aaaaaaaaaaaa", "calm-otter", "docker", "strict", (), "/", ("true",), "2026-01-01", "stopped")
LIVE = RunInfo("run_bbbbbbbbbbbb", "calm-heron", "docker", "strict", (), "/", ("true",), "2026-01-02", "running")
Complete = Callable[[click.Context, click.Parameter, str], Iterable[object]]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / ".moat"))
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    return Home(tmp_path / ".moat")


def found(complete: Complete, incomplete: str = "", profile: str = "") -> list[object]:
    """Return what completes a word inside of `moat --profile PROFILE word`."""
    above = click.Context(click.Group("above"))
    above.params["profile"] = profile
    return list(complete(click.Context(click.Command("word"), parent=above), PARAM, incomplete))


def test_runs_are_found_newest_first_and_each_name_once(home: Home) -> None:
    for each in (OVER, LIVE, RunInfo("run_cccccccccccc", "calm-otter", "docker", "strict", (), "/", (), "2025")):
        RunStore(home).write(each)

    assert found(known.complete_runs) == ["calm-heron", "calm-otter"]
    assert found(known.complete_runs, "calm-o") == ["calm-otter"]
    assert found(known.complete_runs, "wild") == []


def test_what_needs_a_live_run_is_offered_no_other(home: Home) -> None:
    for each in (OVER, LIVE, RunInfo("run_cccccccccccc", "calm-begun", "docker", "strict", (), "/", (), "2025")):
        RunStore(home).write(each)

    assert found(known.complete_live_runs) == ["calm-heron", "calm-begun"]


def test_grants_are_those_stored_in_the_profile(home: Home) -> None:
    for name, profile in (("github", ""), ("claude", ""), ("openai", "work")):
        CredentialStore(home, profile=profile).save(Credential(name, "s" * 20, "prompt"))

    assert found(known.complete_grants) == ["claude", "github"]
    assert found(known.complete_grants, "g") == ["github"]
    assert found(known.complete_grants, profile="work") == ["openai"]
    assert found(known.complete_profiles) == ["work"]
    assert found(known.complete_profiles, "x") == []


def test_a_spoilt_credential_is_offered_too_since_it_can_be_revoked(home: Home) -> None:
    CredentialStore(home).save(Credential("github", "s" * 20, "prompt"))
    (home.credentials / "github.json").write_text("{")

    assert found(known.complete_grants) == ["github"]


@pytest.mark.parametrize(
    "complete", [known.complete_runs, known.complete_live_runs, known.complete_grants, known.complete_profiles]
)
def test_where_nothing_is_kept_nothing_is_found_and_nothing_made(home: Home, complete: Complete) -> None:
    assert found(complete) == []
    assert not home.root.exists()


def test_runtimes_services_and_agents_are_those_that_are_known() -> None:
    assert {"docker", "podman", "bubblewrap", "gvisor", "process"} <= set(found(known.complete_runtimes))
    assert found(known.complete_runtimes, "bu") == ["bubblewrap"]
    assert found(known.complete_services, "p") == ["postgres"]
    assert found(known.complete_agents, "cl") == ["claude"]


def test_folders_are_left_to_the_shell() -> None:
    (item,) = known.complete_folders(click.Context(click.Command("run")), PARAM, "so")

    assert (item.type, item.value) == ("dir", "so")
