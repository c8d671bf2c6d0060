from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from moat.api.errors import DaemonError, SandboxFailed
from moat.api.runs import RunInfo
from moat.api.runtimes import Readiness
from moat.config.settings import Settings
from moat.daemon.protocol import Health, RegisterRequest, RegisterResponse, SetupRequest, SetupResponse
from moat.paths import Home
from moat.plugins.discovery import Candidate
from moat.plugins.manager import Plugins
from moat.runs import checkup, prepare
from moat.runs.checks import Check
from moat.runs.checkup import (
    NO_GETENT,
    NOT_FOUND,
    can_run,
    check_daemon,
    check_door,
    check_keyring,
    check_runtime,
    check_up,
)
from moat.store.keyring import NoKeyring, SystemKeyring
from moat.trace.store import RunStore

from core.runs.fakes import FakeClient, FakeRuntime
from core.runs.plans import a_setup


class Client(FakeClient):
    worker_pid = 8

    def __init__(self, home: Home, told: list[str]) -> None:
        super().__init__(home, told)
        self.store = RunStore(home)

    def register(self, request: RegisterRequest) -> RegisterResponse:
        over = RunInfo(request.run_id, request.name, "fake", "permissive", (), "/x", ("sh",), "2026-01-01", "stopped")
        self.store.write(over)
        return super().register(request)

    def setup(self, request: SetupRequest) -> SetupResponse:
        return a_setup()

    def health(self, timeout_s: float = 1.0) -> Health:
        return Health(7, "0.1.0", 19080, 0, "2026-01-01", 1.0, self.worker_pid)


class Broken(SystemKeyring):
    def get(self, account: str) -> str | None:
        raise NoKeyring("there is none")


class Empty(SystemKeyring):
    def get(self, account: str) -> str | None:
        return None


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client(Home(tmp_path / "moat"), [])
    for module in (checkup, prepare):
        monkeypatch.setattr(module, "ensure_running", lambda _: client)
    return client


def unready(why: str) -> FakeRuntime:
    class Unready(FakeRuntime):
        async def readiness(self, image: str) -> Readiness:
            return Readiness(False, why, "install it")

    return Unready([])


def test_a_daemon_that_is_well_says_who_it_is(tmp_path: Path, client: Client) -> None:
    assert check_daemon(Home(tmp_path)).state == "ok"


def test_a_daemon_of_another_version_is_told(tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moat.__version__", "9.9.9")

    check = check_daemon(Home(tmp_path))

    assert (check.state, check.hint) == ("warning", "run: moat proxy restart")


def test_a_daemon_without_a_worker_is_not_well(tmp_path: Path, client: Client) -> None:
    client.worker_pid = 0

    assert check_daemon(Home(tmp_path)).state == "failed"


def test_a_daemon_that_does_not_start_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(home: Home) -> Client:
        raise DaemonError("it ended at once", hint="see the log")

    monkeypatch.setattr(checkup, "ensure_running", fail)

    assert check_daemon(Home(tmp_path)) == Check("daemon", "failed", "it ended at once", "see the log")


def test_no_keyring_is_a_warning_since_a_file_does(tmp_path: Path) -> None:
    assert check_keyring(Broken(), "").state == "warning"
    assert check_keyring(Empty(), "").state == "ok"
    assert check_keyring(Broken(), "file").state == "ok"


def test_a_runtime_that_is_not_there_is_a_warning_with_what_to_type() -> None:
    check = check_runtime(unready("no engine"), "img")

    assert (check.state, check.detail, check.hint) == ("warning", "no engine", "install it")


def test_a_door_is_checked_by_a_whole_run(tmp_path: Path, client: Client) -> None:
    runtime = FakeRuntime(client.told)

    door, names = check_door(Home(tmp_path / "moat"), runtime, "img")

    assert door == Check("door in fake", "ok", "sealed ✓")
    assert names == Check("names in fake", "ok", "the door answers")
    assert not RunStore(Home(tmp_path / "moat")).list(), "the check is no run of the user's"
    assert client.told == ["register doctor", "launch", "created box-1", "close", "end 0"]


def test_a_door_that_does_not_open_says_why(tmp_path: Path, client: Client) -> None:
    runtime = FakeRuntime([])
    runtime.failure = SandboxFailed("a canary was reached", hint="look")

    assert list(check_door(Home(tmp_path / "moat"), runtime, "")) == [
        Check("door in fake", "failed", "a canary was reached", "look")
    ]
    assert RunStore(Home(tmp_path / "moat")).list(), "there is something to look at"


def test_a_sandbox_with_a_caveat_is_not_called_sealed(tmp_path: Path, client: Client) -> None:
    runtime = FakeRuntime([])
    runtime.caveat = "no door"

    (check,) = check_door(Home(tmp_path / "moat"), runtime, "")

    assert (check.state, check.detail) == ("warning", "no door")


def test_a_command_that_fails_is_no_open_door(tmp_path: Path, client: Client) -> None:
    runtime = FakeRuntime([])
    runtime.exit_code = 1

    assert [check.state for check in check_door(Home(tmp_path / "moat"), runtime, "")] == ["failed"]


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [(NOT_FOUND, ("warning", "the door did not answer a look-up")), (NO_GETENT, ("ok", "not tried: no getent there"))],
)
def test_names_are_looked_up_inside_where_that_can_be(
    tmp_path: Path, client: Client, exit_code: int, expected: tuple[str, str]
) -> None:
    runtime = FakeRuntime([])
    runtime.exit_code = exit_code

    door, names = check_door(Home(tmp_path / "moat"), runtime, "")

    assert (door.state, names.name) == ("ok", "names in fake")
    assert (names.state, names.detail) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["daemon"], False), (["daemon", "door in docker"], True)],
    ids=["nothing was opened", "one run was"],
)
def test_only_an_open_door_counts(names: Sequence[str], expected: bool) -> None:
    assert can_run([Check(name, "ok", "") for name in names]) is expected


def test_everything_is_looked_at(tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    broken = Candidate("bad", "moat-provider-bad", "1", lambda: __import__("no_such_module"))
    plugins = Plugins([broken])
    monkeypatch.setattr(plugins, "runtimes", lambda: [FakeRuntime([]), FakeRuntime([], sealed=False)])

    checks = list(check_up(Home(tmp_path / "moat"), plugins, Settings()))

    assert [check.name for check in checks] == [
        "versions",
        "kernel",
        "name servers",
        "clock",
        "disk",
        "daemon",
        "CA",
        "audit",
        "keyring",
        "plugins",
        "plugins",
        "fake",
        "door in fake",
        "names in fake",
        "fake",
    ]
    assert "moat-provider-bad" in checks[10].detail
    assert "not sealed" in checks[-1].detail
