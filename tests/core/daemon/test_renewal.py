from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from moat.api.credentials import Credential
from moat.api.errors import StoreLocked
from moat.api.rules import RewriteResponse, SetHeader
from moat.daemon import renewal as module
from moat.daemon.extras import GivenCredential, McpServer
from moat.daemon.grants import Grants
from moat.daemon.renewal import Renewal, spent_by
from moat.log import Redactor
from moat.paths import Home

from core.daemon.house import House, a_house, registered
from core.daemon.making import OTHER_ID, RUN_ID, Orchard, Vault, an_info, ask, until

pytestmark = pytest.mark.timeout(60)
FRESH = "tok-s3cr3t-fresh"


class Turning(Vault):
    """A store whose credentials change. on_load: what happens meanwhile."""

    failure: Exception | None = None
    secret = FRESH
    on_load: Any = None

    def load(self, name: str) -> Credential:
        if self.on_load is not None:
            self.on_load()
        if self.failure is not None:
            raise self.failure
        super().load(name)
        return Credential(name, self.secret, "test")

    def mark(self, name: str) -> str:
        return self.secret

    def in_profile(self, profile: str) -> Vault:
        self.profile = profile
        return self


class Overtaken(Turning):
    """A store whose first answer is old news when it comes: meanwhile the grant was renewed, wherever it is spent."""

    secret = "tok-s3cr3t-old"
    meanwhile: Any = None

    def load(self, name: str) -> Credential:
        found = super().load(name)
        if self.secret != FRESH:
            self.secret = FRESH
            self.meanwhile()
        return found


def overtaken(house: House) -> Overtaken:
    """Have the house's grants renewed between the moment when they are resolved next and what is done with them."""
    store, loop = Overtaken("apple"), asyncio.get_running_loop()

    def meanwhile() -> None:
        asyncio.run_coroutine_threadsafe(house.runs.renewal.renew("", "apple"), loop).result(20)

    store.meanwhile = meanwhile
    object.__setattr__(house.parts, "grants", Grants(store, Orchard(), Redactor()))
    return store


def turned(house: House, **changes: Any) -> Turning:
    """Let the house's store change from now on."""
    store = Turning("apple", "pear")
    for name, value in changes.items():
        setattr(store, name, value)
    object.__setattr__(house.parts, "grants", Grants(store, Orchard(), Redactor()))
    return store


def values(house: House, run_id: str = RUN_ID) -> list[str]:
    entry = house.parts.registry.get(run_id)
    assert entry is not None
    return [rule.value for rule in entry.context.rules if isinstance(rule, SetHeader)]


async def test_every_run_that_spends_a_grant_gets_its_new_value_and_no_other_does(home: Home) -> None:
    async with a_house(home) as house:
        await registered(house, grants=("apple",))
        await registered(house, grants=("pear",), run_id=OTHER_ID)
        turned(house)

        await Renewal(house.parts).renew("", "apple")

        assert values(house) == [f"Bearer {FRESH}"]
        assert FRESH not in str(values(house, OTHER_ID))


async def test_a_run_of_another_profile_keeps_its_own(home: Home) -> None:
    async with a_house(home) as house:
        await registered(house, grants=("apple",), profile="work")
        before = values(house)
        turned(house)

        await Renewal(house.parts).renew("", "apple")

        assert values(house) == before


async def test_what_a_registration_brought_itself_stays(home: Home) -> None:
    async with a_house(home) as house:
        mine = GivenCredential("api.mine.test", "Authorization", "Bearer s3cr3t-mine")
        await registered(house, grants=("apple",), credentials=(mine,))
        turned(house)

        await Renewal(house.parts).renew("", "apple")

        assert values(house) == ["Bearer s3cr3t-mine", f"Bearer {FRESH}"]


async def test_of_a_revoked_grant_the_run_is_told_what_would_help(home: Home) -> None:
    async with a_house(home) as house:
        await registered(house, grants=("apple", "pear"), profile="work")
        turned(house)
        ends = {"apple": "the service says that the token was revoked"}

        house.parts.grants.revoked = lambda profile, grant: ends.get(grant, "")
        await Renewal(house.parts).renew("work", "apple")

        entry = house.parts.registry.get(RUN_ID)
        assert entry is not None
        (told,) = [rule for rule in entry.context.rules if isinstance(rule, RewriteResponse)]
        assert (told.match.authority, told.statuses, told.grant) == ("api.apple.test", (401,), "apple")

        ends.clear()
        await Renewal(house.parts).renew("work", "apple")
        entry = house.parts.registry.get(RUN_ID)
        assert entry is not None
        assert not [rule for rule in entry.context.rules if isinstance(rule, RewriteResponse)]


async def test_when_the_store_cannot_be_read_a_run_keeps_what_it_has(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_house(home) as house:
        await registered(house, grants=("apple",))
        before = values(house)
        turned(house, failure=StoreLocked("the keyring is locked"))

        await Renewal(house.parts).renew("", "apple")

        assert values(house) == before
        assert "a run keeps its credentials" in caplog.text


async def test_a_run_that_is_still_to_be_resolved_is_left_to_whoever_does_that(home: Home) -> None:
    async with a_house(home) as house:
        await registered(house, grants=("apple",))
        entry = house.parts.registry.get(RUN_ID)
        assert entry is not None
        closed = replace(entry.context, is_open=False, why_closed="not yet", rules=())
        house.parts.registry.replace(replace(entry, context=closed))
        turned(house)

        await Renewal(house.parts).renew("", "apple")

        entry = house.parts.registry.get(RUN_ID)
        assert entry is not None
        assert entry.context == closed


async def test_what_changed_meanwhile_is_not_undone(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house, grants=("apple",))
        store = turned(house)

        def withdrawn() -> None:
            store.on_load = None
            entry = house.parts.registry.get(RUN_ID)
            assert entry is not None
            context = replace(entry.context, rules=())
            info = an_info(grants=())
            house.parts.registry.replace(replace(entry, context=context, info=info))

        store.on_load = withdrawn
        await Renewal(house.parts).renew("", "apple")

        assert made.auth_token
        assert values(house) == []


async def test_what_is_in_use_is_grants_and_those_of_mcp_servers(home: Home) -> None:
    async with a_house(home) as house:
        server = McpServer("linear", "https://mcp.example.com/mcp", "pear")
        await registered(house, grants=("apple",), profile="work", mcp_servers=(server,))

        assert Renewal(house.parts).in_use() == {("work", "apple"), ("work", "pear")}
        entry = house.parts.registry.get(RUN_ID)
        assert entry is not None
        assert spent_by(entry) == ("apple", "pear")


async def test_runs_that_a_locked_store_kept_from_a_new_value_get_it_when_it_opens(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(module, "MAX_DELAY_S", 0.05)
    asked: list[None] = []
    async with a_house(home) as house:
        await registered(house, grants=("apple",))
        await registered(house, grants=("apple",), run_id=OTHER_ID)
        store = turned(house, failure=StoreLocked("the keyring is locked"), on_load=lambda: asked.append(None))
        renewal = Renewal(house.parts)
        async with asyncio.TaskGroup() as group:
            owing = group.create_task(renewal.owed_forever())
            await renewal.renew("", "apple")
            assert len(asked) == 1  # one key for both
            await until(lambda: len(asked) >= 3)
            store.failure = None
            await until(lambda: values(house) == values(house, OTHER_ID) == [f"Bearer {FRESH}"])
            owing.cancel()


async def test_a_run_that_is_still_to_be_resolved_has_no_refresher_ask_for_the_key_too(home: Home) -> None:
    async with a_house(home) as house:
        await registered(house, grants=("apple",))
        entry = house.parts.registry.get(RUN_ID)
        assert entry is not None
        house.parts.registry.replace(
            replace(entry, context=replace(entry.context, is_open=False, why_closed="not yet"))
        )

        assert Renewal(house.parts).in_use() == set()


async def test_a_run_that_is_registered_while_its_grant_is_renewed_gets_the_new_value(home: Home) -> None:
    async with a_house(home) as house:
        overtaken(house)

        await registered(house, grants=("apple",))

        assert values(house) == [f"Bearer {FRESH}"]
        assert await in_force(house) == [f"Bearer {FRESH}"]


async def test_so_does_one_that_is_registered_again(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house, grants=("apple",))
        overtaken(house)

        await registered(house, grants=("apple",), auth_token=made.auth_token)

        assert values(house) == await in_force(house) == [f"Bearer {FRESH}"]


async def test_one_whose_grant_is_revoked_while_it_is_registered_is_told(home: Home) -> None:
    async with a_house(home) as house:
        ends: dict[str, str] = {}
        store = overtaken(house)
        house.parts.grants.revoked = lambda profile, grant: ends.get(grant, "")
        store.meanwhile = lambda: ends.update(apple="the service says that the token was revoked")

        await registered(house, grants=("apple",))

        entry = house.parts.registry.get(RUN_ID)
        assert entry is not None
        assert [rule.statuses for rule in entry.context.rules if isinstance(rule, RewriteResponse)] == [(401,)]


async def test_without_a_renewal_meanwhile_the_store_is_asked_once(home: Home) -> None:
    asked: list[None] = []
    async with a_house(home) as house:
        turned(house, on_load=lambda: asked.append(None))

        await registered(house, grants=("apple",))

        assert len(asked) == 1


async def in_force(house: House) -> list[str]:
    """Return the values that the worker has."""
    run = (await ask(house.port))["runs"][RUN_ID]
    return [rule["value"] for rule in run["context"]["rules"] if "value" in rule]
