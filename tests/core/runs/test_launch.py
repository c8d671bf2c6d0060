from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from moat.api.errors import DaemonError, SandboxFailed
from moat.api.runtimes import DoorTicket, Sandbox, SandboxSpec, Stdio
from moat.paths import Home
from moat.runs.attach import Attachment
from moat.runs.launch import Launch
from moat.runs.plan import Facts, RunPlan, plan
from moat.runs.registering import Registered

from core.runs.fakes import TOKEN, FakeClient, FakeRuntime
from core.runs.plans import a_setup, a_spec, some_facts


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "moat")


def a_plan(home: Home) -> RunPlan:
    facts = some_facts(a_setup(files={"/home/moat/.toolrc": "placeholder"}))
    here = Facts(**{name: getattr(facts, name) for name in Facts.__slots__} | {"home": home})
    return plan(a_spec(), here)


def a_launch(home: Home, runtime: FakeRuntime, client: FakeClient) -> Launch:
    return Launch(a_plan(home), runtime, client, home, lambda _: runtime.told.append("announced"))


def untouched() -> Attachment:
    """Return an attachment without a terminal, whoever runs the tests."""
    nothing = os.open(os.devnull, os.O_RDWR)
    return Attachment(Stdio(nothing, nothing, nothing))


async def test_steps_are_taken_in_order_and_undone_from_the_right(home: Home) -> None:
    told: list[str] = []
    runtime = FakeRuntime(told)
    runtime.exit_code = 7

    outcome = await a_launch(home, runtime, FakeClient(home, told)).perform(untouched())

    assert told == ["register calm-otter", "launch", "created box-1", "announced", "close", "end 7"]
    assert outcome.exit_code == 7
    assert outcome.info is not None


async def test_files_of_ours_are_there_for_the_run_and_gone_after_it(home: Home) -> None:
    runtime = FakeRuntime([])

    await a_launch(home, runtime, FakeClient(home, [])).perform(untouched())

    assert runtime.files["/home/moat/.toolrc"] == "placeholder"
    assert not home.inside("run_0123456789ab").exists()


async def test_a_moat_home_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real, runtime = Home(tmp_path / "real"), FakeRuntime([])
    linked = Home(tmp_path / "link")

    launch = Launch(a_plan(real), runtime, FakeClient(linked, []), linked, lambda _: None)
    await launch.perform(untouched())

    assert runtime.files["/home/moat/.toolrc"] == "placeholder"


async def test_a_sandbox_that_fails_is_undone_and_reported(home: Home) -> None:
    told: list[str] = []
    runtime = FakeRuntime(told)
    runtime.failure = SandboxFailed("not sealed")

    with pytest.raises(SandboxFailed, match="not sealed"):
        await a_launch(home, runtime, FakeClient(home, told)).perform(untouched())

    assert told == ["register calm-otter", "launch", "end None"]
    assert not home.inside("run_0123456789ab").exists()


async def test_a_signal_before_the_command_started_undoes_everything(home: Home) -> None:
    told: list[str] = []
    runtime = FakeRuntime(told)
    runtime.hangs = True

    async with asyncio.TaskGroup() as group:
        running = group.create_task(a_launch(home, runtime, FakeClient(home, told)).perform(untouched()))
        await runtime.launching.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    assert running.result().exit_code == 128 + signal.SIGTERM
    assert told[-1] == "end None"


async def test_a_lost_gate_is_an_error_and_still_ended(home: Home) -> None:
    told: list[str] = []
    runtime = FakeRuntime(told)
    runtime.loss = SandboxFailed("the gate is lost")

    with pytest.raises(SandboxFailed, match="lost"):
        await a_launch(home, runtime, FakeClient(home, told)).perform(untouched())

    assert told[-2:] == ["close", "end None"]


async def test_a_daemon_that_is_gone_at_the_end_does_not_hide_the_exit_code(home: Home) -> None:
    client = FakeClient(home, [])
    client.end_failure = DaemonError("gone")
    runtime = FakeRuntime([])
    runtime.exit_code = 3

    outcome = await a_launch(home, runtime, client).perform(untouched())

    assert (outcome.exit_code, outcome.info) == (3, None)


async def test_a_run_with_a_door_has_no_token_in_it(home: Home) -> None:
    runtime = FakeRuntime([])

    await a_launch(home, runtime, FakeClient(home, [])).perform(untouched())

    assert runtime.spec is not None
    assert runtime.ticket is not None
    assert TOKEN not in str(runtime.spec.env)
    assert (str(runtime.ticket.folder), runtime.ticket.nonce) == ("/doors/x", "nonce")


async def test_a_run_without_a_door_finds_the_proxy_by_address_and_token(home: Home) -> None:
    runtime = FakeRuntime([], sealed=False)

    await a_launch(home, runtime, FakeClient(home, [], has_door=False)).perform(untouched())

    assert runtime.ticket is not None
    assert runtime.ticket.proxy_url == f"http://moat:{TOKEN}@127.0.0.1:4321"
    assert TOKEN not in repr(runtime.ticket)


async def test_what_a_launch_waits_for_is_told(home: Home) -> None:
    class Waiting(FakeRuntime):
        async def launch(
            self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio, created: Callable[[str], Awaitable[None]]
        ) -> Sandbox:
            ticket.told("db is ready")
            return await super().launch(spec, ticket, stdio, created)

    told: list[str] = []
    launch = Launch(a_plan(home), Waiting([]), FakeClient(home, []), home, lambda _: None, told=told.append)

    await launch.perform(untouched())

    assert told == ["db is ready"]


async def test_what_was_made_before_there_was_an_event_loop_is_not_made_again_and_undone(home: Home) -> None:
    told: list[str] = []
    client, runtime, asked = FakeClient(home, told), FakeRuntime(told), a_plan(home)
    early = Registered(client.register(asked.registration), b"{}")
    early.container_id, early.marks = "box-1", {}
    early.let = lambda: told.append("let")
    made = home.inside("run_0123456789ab")
    made.mkdir(parents=True)
    launch = Launch(asked, runtime, client, home, lambda _: told.append("announced"), early=early)

    await launch.perform(untouched())

    assert told == ["register calm-otter", "let", "launch", "announced", "close", "end 0"]
    assert early.is_taken
    assert runtime.files == {}
    assert not made.exists()
