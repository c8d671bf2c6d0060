from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from moat.api.credentials import CapturedTokens, Credential, CredentialProvider
from moat.api.endpoints import Endpoint, Forward, ProxyPath, Upstream
from moat.api.errors import GrantFailed, GrantMissing, StoreLocked
from moat.api.rules import CaptureToken, Match
from moat.api.runs import RunContext
from moat.daemon.captures import Captures, Means
from moat.daemon.registry import Entry, Registry
from moat.proxy.messages import Captured, Kept

from core.daemon.making import RUN_ID, Fruit, a_context, an_info, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RULE = CaptureToken(Match("api.apple.test", (), ("/token",)), "apple", {}, {"access_token": "moat-placeholder"})
TOKENS = {"access_token": "s3cr3t-fresh"}


class Keeping(Fruit):
    """A provider that keeps what was captured."""

    problem: Exception | None = None

    def captured(self, credential: Credential, tokens: CapturedTokens) -> Credential:
        if self.problem is not None:
            raise self.problem
        return replace(credential, secret=tokens.tokens["access_token"], expires_at=tokens.expires_at)


class Desk:
    """The captures of a daemon, and everything that happened, in its order."""

    def __init__(self) -> None:
        self.registry, self.provider = Registry(), Keeping("apple")
        self.happened: list[object] = []
        self.learned: list[str] = []
        self.kept = {name: Credential(name, "s3cr3t-old", "test") for name in ("apple", "pear")}
        self.problem: Exception | None = None
        self.profile, self.now = "", NOW
        vault, answer = Vault(self), self.happened.append
        means = Means(self.registry, vault, self._provide, self.learned.append, self._renew, answer, lambda: self.now)
        self.captures = Captures(means)

    async def take(self, message: Captured) -> Kept:
        self.captures.take(message)
        await until(lambda: bool(self.happened) and isinstance(self.happened[-1], Kept))
        answer = self.happened[-1]
        assert isinstance(answer, Kept)
        return answer

    def _provide(self, name: str) -> CredentialProvider:
        return self.provider if name == "apple" else Keeping(name)

    async def _renew(self, profile: str, grant: str) -> None:
        self.happened.append(("renewed", profile, grant))


class Vault:
    """A store that writes down in a desk's diary."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def load(self, name: str) -> Credential:
        if name not in self._desk.kept:
            raise GrantMissing(f"no {name} credential is stored")
        return self._desk.kept[name]

    def save(self, credential: Credential) -> None:
        if self._desk.problem is not None:
            raise self._desk.problem
        self._desk.kept[credential.provider] = credential
        self._desk.happened.append("stored")

    def in_profile(self, profile: str) -> Vault:
        self._desk.profile = profile
        return self


@asynccontextmanager
async def a_desk(context: RunContext | None = None) -> AsyncIterator[Desk]:
    desk = Desk()
    desk.registry.publish(Entry(context or a_context(rules=(RULE,)), replace(an_info(), profile="work")))
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(desk.captures.forever())
        yield desk
        serving.cancel()


def a_message(**changes: object) -> Captured:
    values: dict[str, object] = {"id": 7, "run_id": RUN_ID, "grant": "apple", "tokens": TOKENS, "expires_in": 60}
    return Captured(**(values | changes))  # type: ignore[arg-type] # of the fields' types, changes aside


async def test_tokens_are_stored_then_in_force_then_acknowledged() -> None:
    async with a_desk() as desk:
        await desk.take(a_message())

    assert desk.happened == ["stored", ("renewed", "work", "apple"), Kept(7)]
    assert desk.kept["apple"] == Credential("apple", "s3cr3t-fresh", "test", expires_at=NOW + timedelta(seconds=60))
    assert desk.profile == "work"


async def test_a_rule_of_an_endpoint_counts_too() -> None:
    forward = Forward(Upstream("api.apple.test"), (RULE,))
    async with a_desk(a_context(endpoints=(Endpoint(ProxyPath("/_moat/apple/"), forward, "apple"),))) as desk:
        answer = await desk.take(a_message(expires_in=0))

    assert answer == Kept(7)
    assert desk.kept["apple"].expires_at is None


@pytest.mark.parametrize(
    "changes",
    [{"run_id": "run_ffffffffffff"}, {"grant": "pear"}, {"tokens": {}},
     {"tokens": {"access_token": "s3cr3t-fresh", "other": "s3cr3t-other"}},
     {"tokens": {"access_token": "s3cr3t-fresh" + "x" * 20_000}}],
    ids=["no live run", "another grant", "no token", "a field that no rule names", "too long"],
)  # fmt: skip
async def test_the_workers_word_changes_only_what_a_rule_names(changes: dict[str, object]) -> None:
    async with a_desk() as desk:
        answer = await desk.take(a_message(**changes))

    assert answer.problem
    assert desk.happened == [answer]
    assert {credential.secret for credential in desk.kept.values()} == {"s3cr3t-old"}


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (StoreLocked("the keyring is locked"), "the keyring is locked"),
        (OSError(28, "No space left on device"), "the disk says no"),
    ],
)
async def test_what_cannot_be_stored_is_not_acknowledged(problem: Exception, told: str) -> None:
    async with a_desk() as desk:
        desk.problem = problem
        answer = await desk.take(a_message())

    assert answer == Kept(7, told)
    assert desk.kept["apple"].secret == "s3cr3t-old"
    assert desk.happened == [answer]


@pytest.mark.parametrize("problem", [GrantFailed("not ours"), KeyError("s3cr3t-fresh")])
async def test_a_provider_that_fails_costs_this_answer_only(problem: Exception) -> None:
    async with a_desk() as desk:
        desk.provider.problem = problem
        first = await desk.take(a_message())
        desk.provider.problem = None
        desk.happened.clear()
        second = await desk.take(a_message(id=8))

    assert first.problem
    assert "s3cr3t" not in first.problem
    assert second == Kept(8)


async def test_a_provider_that_keeps_none_says_so() -> None:
    with pytest.raises(GrantFailed, match="keeps no captured tokens"):
        Fruit("apple").captured(Credential("apple", "s3cr3t-old", "test"), CapturedTokens(TOKENS))


async def test_what_no_log_may_show_is_learned_first() -> None:
    async with a_desk() as desk:
        await desk.take(a_message())

    assert desk.learned == ["s3cr3t-fresh"]


async def test_tokens_of_a_run_that_has_just_ended_are_stored_too() -> None:
    async with a_desk() as desk:
        desk.registry.remove(RUN_ID)
        answer = await desk.take(a_message())

    assert answer == Kept(7)
    assert desk.kept["apple"].secret == "s3cr3t-fresh"
