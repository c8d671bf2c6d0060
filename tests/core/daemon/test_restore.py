from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from moat.api.credentials import Credential
from moat.api.errors import StoreLocked
from moat.api.runs import RunSpec
from moat.daemon import restore as module
from moat.daemon.extras import GivenCredential
from moat.daemon.grants import Grants, Resolved
from moat.daemon.process import boot_id, start_time
from moat.daemon.protocol import RegisterResponse
from moat.daemon.registry import Entry
from moat.daemon.state import load, parse, render, state_file
from moat.log import Redactor
from moat.paths import Home

from core.daemon.gates import a_gate
from core.daemon.house import House, a_house, a_request, registered
from core.daemon.making import OTHER_ID, RUN_ID, Orchard, Vault, an_info, ask, until
from core.daemon.test_renewal import FRESH, overtaken, values

pytestmark = pytest.mark.timeout(60)  # real gates


class Locked(Vault):
    """A store whose keyring is locked until it is not."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.is_locked = True
        self.asked = 0

    def load(self, name: str) -> Credential:
        self.asked += 1
        if self.is_locked:
            raise StoreLocked("the keyring is locked", hint="unlock the keyring, then try again")
        return super().load(name)

    def in_profile(self, profile: str) -> Vault:
        self.profile = profile
        return self


@asynccontextmanager
async def a_successor(home: Home, entries: list[Entry], store: Vault | None = None) -> AsyncIterator[House]:
    """A house that begins with what the one before it has written down."""
    async with a_house(home) as house:
        if store is not None:
            object.__setattr__(house.parts, "grants", Grants(store, Orchard(), Redactor()))
        for entry in entries:
            house.parts.store.write(entry.info)
        house.runs.restore.begin(entries)
        async with asyncio.TaskGroup() as group:
            resolving = group.create_task(house.runs.restore.resolve_forever())
            try:
                yield house
            finally:
                resolving.cancel()


async def a_dead_house(home: Home, **changes: Any) -> tuple[RegisterResponse, list[Entry]]:
    """Register a run with a daemon that then lets go of it; return what it leaves behind."""
    async with a_house(home) as house:
        made = await registered(house, **({"grants": ("apple",)} | changes))
        house.runs.tell_container(made.auth_token, str(os.getpid()))
        await house.parts.ledger.settled()
        await house.runs.leave()
        return made, load(home, boot_id())


async def context(house: House, run_id: str = RUN_ID) -> dict[str, Any]:
    return dict((await ask(house.port))["runs"][run_id]["context"])


async def opened(house: House, run_id: str = RUN_ID) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            runs = (await ask(house.port))["runs"]  # a run whose gate was refused is not there for a moment
            if run_id in runs and runs[run_id]["context"]["is_open"]:
                return dict(runs[run_id]["context"])
            await asyncio.sleep(0.02)


async def test_a_run_comes_back_with_its_token_its_policy_and_its_credentials(home: Home) -> None:
    made, entries = await a_dead_house(home, network_policy="strict", network_allow=("x.test",))

    async with a_successor(home, entries) as house:
        found = await opened(house)

        assert [info.run_id for info in house.runs.list()] == [RUN_ID]
        assert [rule["grant"] for rule in found["rules"]] == ["apple"]
        assert (found["policy"]["mode"], found["policy"]["allow"], found["why_closed"]) == ("strict", ["x.test"], "")
        assert (await house.runs.end(made.auth_token, 3)).exit_code == 3


async def test_credentials_come_from_the_run_s_own_profile(home: Home) -> None:
    _, entries = await a_dead_house(home, profile="work")

    async with a_successor(home, entries) as house:
        found = await opened(house)

    assert found["rules"][0]["value"].endswith("-work")


async def test_of_a_grant_that_is_revoked_a_restored_run_is_told(home: Home) -> None:
    _, entries = await a_dead_house(home)

    async with a_house(home) as house:
        house.parts.grants.revoked = lambda profile, grant: "it was revoked"
        house.parts.store.write(entries[0].info)
        house.runs.restore.begin(entries)
        async with asyncio.TaskGroup() as group:
            resolving = group.create_task(house.runs.restore.resolve_forever())
            found = await opened(house)
            resolving.cancel()

    assert [rule["grant"] for rule in found["rules"]] == ["apple", "apple"]
    assert found["rules"][0]["statuses"] == [401]


async def test_a_grant_that_is_renewed_while_it_is_restored_has_its_new_value(home: Home) -> None:
    _, entries = await a_dead_house(home)

    async with a_house(home) as house:
        overtaken(house)
        house.parts.store.write(entries[0].info)
        house.runs.restore.begin(entries)
        async with asyncio.TaskGroup() as group:
            resolving = group.create_task(house.runs.restore.resolve_forever())
            await until(lambda: values(house) == [f"Bearer {FRESH}"])
            resolving.cancel()


async def test_a_locked_keyring_keeps_the_run_closed_with_the_reason_and_is_asked_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(module, "MAX_DELAY_S", 0.05)
    _, entries = await a_dead_house(home)
    store = Locked("apple")

    async with a_successor(home, entries, store) as house:
        await until(lambda: store.asked >= 3)
        found = await context(house)
        assert not found["is_open"]
        assert found["why_closed"].endswith(": the keyring is locked; hint: unlock the keyring, then try again")
        assert found["rules"] == []
        assert house.runs.restore.waiting == (RUN_ID,)
        assert house.runs.list() != []

        store.is_locked = False
        assert (await opened(house))["rules"] != []
        assert not house.runs.restore.waiting


async def test_a_locked_keyring_is_asked_once_a_round_however_many_runs_wait(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 3600.0)
    _, entries = await a_dead_house(home)
    (entry,) = entries
    other = replace(
        entry,
        context=replace(entry.context, run_id=OTHER_ID, token_sha256="0" * 64),
        info=an_info(OTHER_ID, grants=("pear",)),
    )
    store = Locked("apple", "pear")

    async with a_house(home) as house:
        object.__setattr__(house.parts, "grants", Grants(store, Orchard(), Redactor()))
        house.runs.restore.begin([entry, other])
        async with asyncio.TaskGroup() as group:
            resolving = group.create_task(house.runs.restore.resolve_forever())
            await until(lambda: store.asked == 1)
            resolving.cancel()
        assert house.runs.restore.waiting == (RUN_ID, OTHER_ID)


async def test_a_locked_keyring_closes_no_run_that_needs_no_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 3600.0)
    _, (entry,) = await a_dead_house(home)
    other = replace(
        entry, context=replace(entry.context, run_id=OTHER_ID, token_sha256="0" * 64), info=an_info(OTHER_ID)
    )
    store = Locked("apple")

    async with a_successor(home, [entry, other], store) as house:
        await until(lambda: house.runs.restore.waiting == (RUN_ID,))

        assert (await context(house, OTHER_ID))["is_open"]
        assert not (await context(house))["is_open"]
        assert store.asked == 1


async def test_a_grant_that_is_gone_or_a_provider_that_fails_keeps_the_run_closed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, entries = await a_dead_house(home)

    async with a_successor(home, entries, Vault()) as house:
        await until(lambda: _why(house).endswith(": missing grant: apple; hint: run: moat grant apple"))

    async with a_successor(home, entries) as house:

        def fail(spec: RunSpec) -> Resolved:
            raise ZeroDivisionError("a mistake")

        monkeypatch.setattr(house.parts.grants, "resolve", fail)
        await until(lambda: _why(house).endswith(": a provider failed; hint: run: moat proxy logs"))
        assert not (await context(house))["is_open"]


async def test_of_several_grants_and_of_lost_values_each_is_told_what_helps(home: Home) -> None:
    _, entries = await a_dead_house(home, grants=("apple", "pear"), profile="work")
    async with a_successor(home, entries, Vault()) as house:
        await until(lambda: "missing grants" in _why(house))
        assert _why(house).endswith("apple, pear; hint: run: moat grant apple; run: moat grant pear")

    mine = GivenCredential("api.mine.test", "Authorization", "Bearer s3cr3t-mine")
    _, entries = await a_dead_house(home, run_id=OTHER_ID, grants=(), credentials=(mine,))
    async with a_successor(home, [each for each in entries if each.run_id == OTHER_ID]) as house:
        await until(lambda: "the values" in _why(house, OTHER_ID))
        assert _why(house, OTHER_ID).endswith("; hint: register the run again, with auth_token")


def _why(house: House, run_id: str = RUN_ID) -> str:
    entry = house.parts.registry.get(run_id)
    return "" if entry is None else entry.context.why_closed


async def test_registering_again_is_another_way_to_come_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 3600.0)
    made, entries = await a_dead_house(home)
    store = Locked("apple")

    async with a_successor(home, entries, store) as house:
        await until(lambda: store.asked == 1)
        object.__setattr__(house.parts, "grants", Grants(Vault("apple"), Orchard(), Redactor()))
        await registered(house, grants=("apple",), auth_token=made.auth_token)

        assert (await context(house))["is_open"]
        assert not house.runs.restore.waiting


async def test_a_run_served_at_an_address_of_its_own_gets_the_same_port(home: Home) -> None:
    async with a_house(home) as house:
        made = await house.runs.register(a_request(grants=("apple",)))
        again = a_request(
            grants=("apple",), auth_token=made.auth_token, needs_door=False, listen_on="127.0.0.9",
            launcher_pid=os.getpid(),
        )  # fmt: skip
        port = (await house.runs.register(again)).proxy_port
        await house.runs.leave()
        entries = load(home, boot_id())

    (entry,) = entries
    assert (entry.place.listen_on, entry.place.port) == ("127.0.0.9", port)
    assert entry.place.began == start_time(os.getpid())
    async with a_house(home) as house:
        house.runs.restore.begin(entries)
        await until(lambda: _listens(house))
        assert ["run_0123456789ab", "token"] in (await ask(house.port))["listeners"]
        assert await _answers("127.0.0.9", port)


def _listens(house: House) -> bool:
    return any(message.run_id == RUN_ID for message in house.parts.worker._sockets)


async def _answers(host: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"state\n")
    line = await reader.readline()
    writer.close()
    return RUN_ID in json.loads(line)["runs"]


async def test_a_run_whose_launcher_ended_meanwhile_is_over(home: Home) -> None:
    launcher = await asyncio.create_subprocess_exec("true")
    await launcher.wait()
    _, (entry,) = await a_dead_house(home)
    gone = replace(entry, info=replace(entry.info, container_id=str(launcher.pid)))
    reused = replace(entry, place=replace(entry.place, began=1))

    for each in (gone, reused):
        async with a_successor(home, [each]) as house:
            await until(lambda house=house: house.state() == "lost")  # type: ignore[misc] # mypy infers no lambda


async def test_the_gate_comes_back_to_the_same_door_and_only_from_its_own_namespace(home: Home) -> None:
    async with a_house(home) as house:
        made = await house.runs.register(a_request(grants=("apple",)))
        assert made.door is not None
        async with a_gate(RUN_ID, home.door(RUN_ID), made.door.nonce) as gate:
            assert (await gate.event())["event"] == "open"
            await until(lambda: _cookie(house) != 0)
            await house.parts.ledger.settled()
            (entry,) = load(home, boot_id())
            nonce = made.door.nonce
            moved = replace(entry, place=replace(entry.place, cookie=entry.place.cookie + 1))
            await house.runs.leave()

            async with a_successor(home, [moved]) as successor:
                refused = await gate.event()
                assert "another network namespace than before" in refused["problem"]
                assert not await _is_open(successor)

            async with a_successor(home, [entry]):
                await until(lambda: any(home.door(RUN_ID).glob("*.sock")))  # a new gate looks for it once
                async with a_gate(RUN_ID, home.door(RUN_ID), nonce) as other:
                    assert "another network namespace than before" in (await other.event())["problem"]


async def test_a_gate_that_is_known_is_served_as_before(home: Home) -> None:
    async with AsyncExitStack() as stack:
        async with a_house(home) as house:
            made = await house.runs.register(a_request(grants=("apple",)))
            assert made.door is not None
            gate = await stack.enter_async_context(a_gate(RUN_ID, home.door(RUN_ID), made.door.nonce))
            assert (await gate.event())["event"] == "open"
            await until(lambda: _cookie(house) != 0)
            await house.parts.ledger.settled()
            entries = load(home, boot_id())
            await house.runs.leave()

        async with a_successor(home, entries) as successor:
            found = await opened(successor)
            assert [rule["grant"] for rule in found["rules"]] == ["apple"]
            assert _cookie(successor) == entries[0].place.cookie
            await gate.leave()
            await until(lambda: successor.runs.list() == [])


async def test_a_run_whose_command_line_is_gone_is_not_waited_for(home: Home) -> None:
    async with a_house(home) as house:
        await house.runs.register(a_request(launcher_pid=os.getpid()))
        await house.parts.ledger.settled()
        (entry,) = load(home, boot_id())
        await house.runs.leave()
    assert (entry.place.launcher, entry.place.began) == (str(os.getpid()), start_time(os.getpid()))
    gone = replace(entry, place=replace(entry.place, began=1))

    async with a_successor(home, [gone]) as successor:
        await until(lambda: ("reaped", "bubblewrap", RUN_ID) in successor.orchard.seen)
        assert successor.state() == "lost"
    async with a_successor(home, [entry]) as successor:
        assert successor.runs.list() != []


async def test_a_run_that_needs_a_newer_daemon_stays_closed_until_it_is_registered_again(home: Home) -> None:
    made, (entry,) = await a_dead_house(home)
    content = json.loads(render([replace(entry, needs=("dreams",))], boot_id()))
    (foreign,), _ = parse(json.dumps(content).encode(), boot_id())

    async with a_successor(home, [foreign]) as house:
        found = await context(house)
        assert not house.runs.restore.waiting
        assert (found["is_open"], found["rules"]) == (False, [])
        assert "dreams" in found["why_closed"]
        await house.parts.ledger.settled()
        assert json.loads(state_file(home).read_bytes())["runs"] == content["runs"]

        await registered(house, grants=("apple",), auth_token=made.auth_token)

        assert (await context(house))["is_open"]
        assert json.loads(state_file(home).read_bytes())["runs"][0]["needs"] == []


async def _is_open(house: House) -> bool:
    runs = (await ask(house.port))["runs"]
    return RUN_ID in runs and bool(runs[RUN_ID]["context"]["is_open"])


def _cookie(house: House) -> int:
    entry = house.parts.registry.get(RUN_ID)
    return 0 if entry is None else entry.place.cookie
