from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.errors import DaemonLeaving, GrantMissing, MoatError, SandboxFailed
from moat.api.runtimes import DoorTicket, SandboxSpec, Stdio
from moat.daemon.protocol import RegisterRequest, RegisterResponse
from moat.paths import Home
from moat.runs import registering
from moat.runs.registering import register, registered_early, write_files

from core.runs.fakes import TOKEN, FakeClient, FakeRuntime
from core.runs.test_launch import a_plan

RUN = "run_0123456789ab"


class Client(FakeClient):
    """refusal: what the daemon says to a registration."""

    refusal: MoatError | None = None

    def register(self, request: RegisterRequest) -> RegisterResponse:
        if self.refusal is not None:
            raise self.refusal
        return super().register(request)


class Beginning(FakeRuntime):
    """Begins when it is told to. refusal: what it says to what it is provided with."""

    refusal: SandboxFailed | None = None

    def expect(self, ticket: DoorTicket) -> str:
        self.told.append(f"expect {ticket.run_id}")
        return "box-1"

    def provide(self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio) -> None:
        if self.refusal is not None:
            raise self.refusal
        there = [mount.target for mount in spec.mounts if mount.target.endswith(".toolrc") and mount.source.is_file()]
        self.told.append(f"provide {', '.join(there)} {stdio.stdin}")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "moat")


@pytest.fixture
def stdio() -> Iterator[Stdio]:
    nothing = os.open(os.devnull, os.O_RDWR)
    yield Stdio(nothing, nothing, nothing)
    os.close(nothing)


def test_what_is_loaded_is_loaded_while_the_run_is_registered_and_begins(home: Home, stdio: Stdio) -> None:
    told: list[str] = []
    beside: list[str] = []
    plan, client, runtime = a_plan(home), Client(home, told), Beginning(told)

    with registered_early(plan, home, client, runtime, stdio, lambda: beside.append("loaded")) as early:
        assert early is not None
        assert (early.answer.auth_token, early.container_id, early.marks) == (TOKEN, "box-1", {})
        early.is_taken = True

    assert beside == ["loaded"]
    assert told == [
        "register calm-otter", f"expect {RUN}", "created box-1", f"provide /home/moat/.toolrc {stdio.stdin}",
    ]  # fmt: skip


def test_a_command_is_registered_without_the_secrets_that_the_run_is_given(home: Home) -> None:
    asked: list[RegisterRequest] = []

    class Listening(FakeClient):
        def register(self, request: RegisterRequest) -> RegisterResponse:
            asked.append(request)
            return super().register(request)

    made = a_plan(home)
    sandbox = replace(made.sandbox, env={"API_KEY": "s3cr3t-value"})
    registration = replace(made.registration, command=("call", "--key=s3cr3t-value"))
    register(
        replace(made, sandbox=sandbox, registration=registration, origins={"API_KEY": "-e"}), home, Listening(home, [])
    )

    assert [each.command for each in asked] == [("call", "--key=[redacted]")]


def test_a_runtime_that_does_nothing_early_finds_nothing_done(home: Home, stdio: Stdio) -> None:
    told: list[str] = []

    with registered_early(a_plan(home), home, Client(home, told), FakeRuntime(told), stdio, lambda: None) as early:
        assert early is not None
        assert (early.container_id, early.marks) == ("", None)
        early.is_taken = True

    assert told == ["register calm-otter"]


def test_a_run_that_nobody_takes_over_is_ended(home: Home, stdio: Stdio) -> None:
    told: list[str] = []

    with registered_early(a_plan(home), home, Client(home, told), Beginning(told), stdio, lambda: None):
        assert home.inside(RUN).exists()

    assert told[-1] == "end None"
    assert not home.inside(RUN).exists()


def test_a_sandbox_that_is_refused_is_told_and_the_run_is_ended(home: Home, stdio: Stdio) -> None:
    told: list[str] = []
    runtime = Beginning(told)
    runtime.refusal = SandboxFailed("not mounted")

    with (
        pytest.raises(SandboxFailed, match="not mounted"),
        registered_early(a_plan(home), home, Client(home, told), runtime, stdio, lambda: None),
    ):
        pass

    assert told[-1] == "end None"
    assert not home.inside(RUN).exists()


def test_what_the_daemon_refuses_is_told_and_nothing_is_ended(home: Home, stdio: Stdio) -> None:
    told: list[str] = []
    client = Client(home, told)
    client.refusal = GrantMissing("no grant github")

    with (
        pytest.raises(GrantMissing),
        registered_early(a_plan(home), home, client, Beginning(told), stdio, lambda: None),
    ):
        pass

    assert told == []


def test_a_daemon_that_goes_leaves_it_to_who_has_time(
    home: Home, stdio: Stdio, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    client = Client(home, told)
    client.refusal = DaemonLeaving("it goes")
    monkeypatch.setattr(registering, "patiently", lambda home, client, ask: ask(Client(home, told)))

    with registered_early(a_plan(home), home, client, Beginning(told), stdio, lambda: None) as early:
        assert early is None

    assert register(a_plan(home), home, client).answer.auth_token == TOKEN
    assert told == ["register calm-otter"]


def test_a_daemon_that_goes_once_the_run_is_registered_leaves_the_rest_to_launch(home: Home, stdio: Stdio) -> None:
    class Leaving(Client):
        def tell_container(self, token: str, container_id: str) -> None:
            raise DaemonLeaving("it goes")

    told: list[str] = []

    with registered_early(a_plan(home), home, Leaving(home, told), Beginning(told), stdio, lambda: None) as early:
        assert early is not None
        assert (early.container_id, early.marks) == ("", None)
        early.is_taken = True

    assert told == ["register calm-otter", f"expect {RUN}"]


def test_output_that_goes_to_a_terminal_is_for_who_can_carry_it(home: Home) -> None:
    master, slave = os.openpty()
    told: list[str] = []

    with registered_early(
        a_plan(home), home, Client(home, told), Beginning(told), Stdio(slave, slave, slave), lambda: None
    ) as early:
        assert early is None
    for number in (master, slave):
        os.close(number)

    assert told == []


def test_signals_wait_until_they_are_let(home: Home, stdio: Stdio) -> None:
    taken: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: taken.append(number))
    try:
        with registered_early(a_plan(home), home, Client(home, []), Beginning([]), stdio, lambda: None) as early:
            assert early is not None
            early.is_taken = True
            signal.raise_signal(signal.SIGTERM)  # to this thread: others of the tests' own may block none
            assert taken == []
            early.let()
            assert taken == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(registering.STOPPING) == set()


def test_files_are_readable_inside_and_closed_outside_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "inside" / "run_0123456789ab"
    before = os.umask(0o077)
    try:
        write_files(folder, {folder / "etc/moat/ca.pem": "x"})
    finally:
        os.umask(before)

    assert (folder / "etc/moat/ca.pem").stat().st_mode & 0o777 == 0o644
    assert (folder / "etc/moat").stat().st_mode & 0o777 == 0o755
    assert folder.stat().st_mode & 0o777 == 0o755
    assert folder.parent.stat().st_mode & 0o777 == 0o700
