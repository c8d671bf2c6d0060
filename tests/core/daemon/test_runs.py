from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from moat.api.errors import DaemonError, GrantMissing, MoatError, RunNotFound, UsageError
from moat.daemon.protocol import RegisterResponse, SetupRequest
from moat.paths import Home
from moat.runs.blotting import Blotter, blotted
from support.installation import eventually

from core.daemon.house import House, a_house, a_request, registered
from core.daemon.making import OTHER_ID, RUN_ID, SECRET, ask

pytestmark = pytest.mark.timeout(60)  # real workers


async def test_a_setup_shows_what_grants_put_inside_and_changes_nothing(home: Home) -> None:
    async with a_house(home) as house:
        answer = await house.runs.setup(SetupRequest(grants=("apple",)))

        assert (answer.env, answer.hosts) == ({"APPLE_TOKEN": "moat-placeholder"}, ("api.apple.test",))
        assert answer.ca_certificate == "CERT"
        assert house.runs.list() == []
        assert blotted(f"it is {SECRET}", Blotter(known=answer.known)) == "it is [redacted]"
        assert SECRET not in str(answer)
    assert not home.runs.exists()


async def test_a_setup_tells_marks_of_what_mcp_servers_are_asked_with_and_of_what_is_missing_none(home: Home) -> None:
    async with a_house(home) as house:
        before = await house.runs.setup(SetupRequest(mcp_grants=("plum",)))
        after = await house.runs.setup(SetupRequest(mcp_grants=("plum", "pear")))

    assert (len(before.known.marks), len(after.known.marks)) == (0, 1)


async def test_a_secret_that_a_command_holds_is_neither_written_down_nor_listed(home: Home) -> None:
    async with a_house(home) as house:
        await registered(house, grants=("apple",), command=("echo", f"--token={SECRET}"))
        await house.parts.ledger.settled()

        assert [info.command for info in house.runs.list()] == [("echo", "--token=[redacted]")]
        written = [path for path in home.root.rglob("*") if path.is_file()]
        assert {"run.json", "runs.json"} <= {path.name for path in written}
        assert [path for path in written if SECRET.encode() in path.read_bytes()] == []


async def test_a_run_without_a_door_is_known_by_its_token(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house, grants=("apple",), network_policy="strict", network_allow=("*.test.org",))
        context = (await ask(house.port))["runs"][RUN_ID]["context"]

        assert (made.door, made.proxy_port, len(made.auth_token)) == (None, 19080, 64)
        assert context["is_open"]
        assert context["policy"] == {"mode": "strict", "allow": ["*.test.org"]}
        assert [rule["value"] for rule in context["rules"]] == [f"Bearer {SECRET}"]
        assert made.auth_token not in str(context)
        assert house.state() == "starting"
        assert SECRET not in (home.run(RUN_ID) / "run.json").read_text()


async def test_a_run_s_life_is_written_down_and_told(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house)
        house.runs.tell_container(made.auth_token, str(os.getpid()))
        assert house.state() == "running"

        await ask(house.port, f"record {RUN_ID}")
        info = await house.runs.end(made.auth_token, 3)

        assert (info.state, info.exit_code, info.requests, info.denied) == ("stopped", 3, 1, 1)
        assert info.container_id == str(os.getpid())
        assert house.parts.store.read(RUN_ID) == info
        assert (await ask(house.port))["runs"] == {}
        assert house.runs.list() == []
        told = [each for each in house.orchard.seen if each[0] != "configure"]
        assert told == [("started", RUN_ID), ("exchange", RUN_ID), ("stopped", RUN_ID, 3)]


async def test_an_ended_run_may_be_ended_again_and_its_exit_code_completed(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house)
        await house.runs.end(made.auth_token, None)

        assert (await house.runs.end(made.auth_token, 7)).exit_code == 7
        assert (await house.runs.end(made.auth_token, None)).exit_code == 7
        with pytest.raises(RunNotFound):
            house.runs.tell_container(made.auth_token, "c")
        with pytest.raises(RunNotFound):
            await house.runs.end("f" * 64, 0)


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        pytest.param({"run_id": "../../etc"}, UsageError, id="a path for an id"),
        pytest.param({"name": "../x"}, UsageError, id="a path for a name"),
        pytest.param({"runtime": "a b"}, UsageError, id="no name of a runtime"),
        pytest.param({"grants": ("plum", "kiwi")}, UsageError, id="a grant nobody provides"),
        pytest.param({"grants": ("plum",)}, GrantMissing, id="a grant that is not stored"),
        pytest.param({"network_policy": "lenient"}, UsageError, id="a policy nobody knows"),
        pytest.param({"network_allow": ("git*.com",)}, UsageError, id="a pattern that means nothing"),
        pytest.param({"auth_token": "x"}, UsageError, id="no token"),
    ],
)
async def test_a_refused_registration_leaves_nothing(home: Home, changes: dict[str, Any], failure: type) -> None:
    async with a_house(home) as house:
        with pytest.raises(failure):
            await house.runs.register(a_request(**changes))

        assert house.runs.list() == []
        assert (await ask(house.port))["runs"] == {}
    assert list(home.root.rglob("run.json")) == []
    assert list(home.root.rglob("door.sock")) == []


async def test_an_id_is_used_once(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house)
        with pytest.raises(DaemonError, match="used before"):
            await registered(house)
        await house.runs.end(made.auth_token, 0)
        with pytest.raises(DaemonError, match="used before"):
            await registered(house)


async def test_of_two_registrations_of_one_id_at_once_one_wins(home: Home) -> None:
    results: list[RegisterResponse | MoatError] = []

    async def attempt(house: House) -> None:
        try:
            results.append(await registered(house))
        except DaemonError as refusal:
            results.append(refusal)

    async with a_house(home) as house:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(attempt(house))

        assert [isinstance(each, RegisterResponse) for each in results].count(True) == 1
        assert len(house.runs.list()) == 1


async def test_registering_again_with_the_token_replaces_rules_and_policy(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house, grants=("apple",))
        again = await registered(house, grants=("pear",), network_policy="strict", auth_token=made.auth_token)
        context = (await ask(house.port))["runs"][RUN_ID]["context"]

        assert again.auth_token == made.auth_token
        assert [rule["grant"] for rule in context["rules"]] == ["pear"]
        assert (context["policy"]["mode"], context["is_open"]) == ("strict", True)
        with pytest.raises(DaemonError, match="another run"):
            await registered(house, run_id=OTHER_ID, auth_token=made.auth_token)


async def test_of_two_runs_that_had_one_token_the_live_one_is_ended(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house)
        await house.runs.end(made.auth_token, 0)
        await registered(house, run_id=OTHER_ID, auth_token=made.auth_token)

        ended = await house.runs.end(made.auth_token, 7)

        assert (ended.run_id, ended.exit_code, house.runs.list()) == (OTHER_ID, 7, [])
        assert (await house.runs.end(made.auth_token, 7)).run_id == OTHER_ID


async def test_two_runs_keep_their_own_credentials(home: Home) -> None:
    async with a_house(home) as house:
        await registered(house, grants=("apple",))
        await registered(house, run_id=OTHER_ID, grants=("pear",))
        runs = (await ask(house.port))["runs"]

    assert [runs[each]["context"]["rules"][0]["grant"] for each in (RUN_ID, OTHER_ID)] == ["apple", "pear"]


async def test_a_run_whose_door_is_not_reached_is_served_at_an_address_by_token(home: Home) -> None:
    async with a_house(home) as house:
        made = await house.runs.register(a_request())
        again = a_request(auth_token=made.auth_token, needs_door=False, listen_on="127.0.0.9", launcher_pid=os.getpid())

        answer = await house.runs.register(again)

        state = await ask(house.port)
        assert answer.proxy_port not in (0, made.proxy_port)
        assert state["runs"][RUN_ID]["context"]["is_open"]
        assert [RUN_ID, "token"] in state["listeners"]
        assert made.door is not None
        assert not home.door(RUN_ID).exists()
        await house.runs.end(made.auth_token, 0)
        assert (await ask(house.port))["runs"] == {}


async def test_a_run_without_door_or_process_is_over_with_its_launcher(home: Home) -> None:
    launcher = await asyncio.create_subprocess_exec("sleep", "60")
    async with a_house(home) as house:
        made = await house.runs.register(a_request())
        await house.runs.register(
            a_request(auth_token=made.auth_token, needs_door=False, listen_on="127.0.0.9", launcher_pid=launcher.pid)
        )
        house.runs.tell_container(made.auth_token, "an-engine-s-id")

        launcher.kill()
        await launcher.wait()

        await asyncio.to_thread(eventually, "the run is over", lambda: house.state() == "lost")


async def test_what_a_daemon_must_be_capable_of_is_kept_of_the_latest_registration(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house, network_rules=("allow GET api.example.com",))
        assert _needs(house) == ("network-rules",)

        await registered(house, auth_token=made.auth_token)

        assert _needs(house) == ()


def _needs(house: House) -> tuple[str, ...]:
    entry = house.parts.registry.get(RUN_ID)
    assert entry is not None
    return entry.needs
