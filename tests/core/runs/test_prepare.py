from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.container import Limits
from moat.api.errors import GrantMissing, RuntimeUnavailable, UsageError
from moat.api.runs import RunSpec
from moat.daemon.protocol import SetupRequest, SetupResponse
from moat.paths import Home
from moat.runs import prepare as module
from moat.runs.prepare import prepare

from core.runs.fakes import FakeClient, FakeRuntime
from core.runs.plans import a_setup


class Client(FakeClient):
    def setup(self, request: SetupRequest) -> SetupResponse:
        if "absent" in request.grants:
            raise GrantMissing("missing grant: absent", hint="run: moat grant absent")
        return a_setup()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Home]:
    """Count the daemons that are asked for."""
    homes: list[Home] = []

    def ensure_running(home: Home) -> FakeClient:
        homes.append(home)
        return Client(home, [])

    monkeypatch.setattr(module, "ensure_running", ensure_running)
    return homes


def a_spec(tmp_path: Path, **more: object) -> RunSpec:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return RunSpec(work, ("true",), **more)  # type: ignore[arg-type] # whatever the test wants


def test_a_run_is_prepared_in_the_runtime_that_was_named(tmp_path: Path, started: list[Home]) -> None:
    home = Home(tmp_path / "moat")

    prepared = prepare(a_spec(tmp_path, runtime="fake"), home, [FakeRuntime([])], {}, (24, 80))

    assert prepared.runtime.name == prepared.plan.registration.runtime == "fake"
    assert prepared.plan.sandbox.terminal == (24, 80)
    assert started == [home]


def test_nothing_is_started_for_a_runtime_that_nobody_has(tmp_path: Path, started: list[Home]) -> None:
    with pytest.raises(UsageError, match="podman"):
        prepare(a_spec(tmp_path, runtime="podman"), Home(tmp_path / "moat"), [FakeRuntime([])], {})

    assert started == []


def test_a_missing_grant_ends_it_before_anything_is_registered(tmp_path: Path, started: list[Home]) -> None:
    runtime = FakeRuntime([])

    with pytest.raises(GrantMissing):
        prepare(a_spec(tmp_path, runtime="fake", grants=("absent",)), Home(tmp_path / "moat"), [runtime], {})

    assert runtime.told == []


def test_limits_that_the_runtime_cannot_hold_are_refused_before_anything_is_there(
    tmp_path: Path, started: list[Home]
) -> None:
    runtime, limits = FakeRuntime([]), Limits(memory_bytes=1 << 30, ulimits={"core": (0, 0)})

    with pytest.raises(RuntimeUnavailable, match=r"fake cannot hold .* memory, ulimits\.core") as refusal:
        prepare(a_spec(tmp_path, runtime="fake", limits=limits), Home(tmp_path / "moat"), [runtime], {})

    assert "--runtime docker" in refusal.value.hint
    assert (started, runtime.told) == ([], [])
