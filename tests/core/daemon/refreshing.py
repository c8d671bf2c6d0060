"""Refreshers with a token server, a store and a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from moat.api.credentials import Credential, CredentialProvider, Host
from moat.api.errors import GrantMissing, GrantRevoked
from moat.daemon.protocol import GrantState
from moat.daemon.refresh import Key, Means, Refreshers
from moat.testing.host import FakeHost

from core.daemon.clocks import TestClock
from core.daemon.making import until

HOUR = 3600.0


class TokenServer:
    """Hands out numbered tokens, each for the one before it and once only, as servers with rotation do."""

    def __init__(self) -> None:
        self.issued = 0
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.lifetime_s = 0.0
        self.busy = asyncio.Lock()

    async def renew(self, token: str, clock: TestClock) -> Credential:
        assert not self.busy.locked(), "two at once"
        async with self.busy:
            self.asked.append(token)
            await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
            if token != f"tok-s3cr3t-{self.issued}":
                raise GrantRevoked("the service says that the token was revoked")
            self.issued += 1
            ends = clock.now() + timedelta(seconds=self.lifetime_s) if self.lifetime_s else None
            return Credential("apple", f"tok-s3cr3t-{self.issued}", "device flow", expires_at=ends)


class Apple(CredentialProvider):
    name = "apple"
    summary = "for tests"
    refresh_every_s = HOUR
    variables = ("APPLE_TOKEN",)

    def __init__(self, server: TokenServer, clock: TestClock) -> None:
        self.server, self.clock = server, clock

    async def grant(self, host: Host) -> Credential:
        raise NotImplementedError

    async def accept(self, secret: str, host: Host) -> Credential:
        raise NotImplementedError

    def rules(self, credential: Credential) -> list[Any]:
        return []

    async def refresh(self, credential: Credential, host: Host) -> Credential:
        return await self.server.renew(credential.secret, self.clock)


class Vault:
    """A store of profiles in memory."""

    def __init__(self) -> None:
        self.kept: dict[Key, Credential] = {}
        self.profile = ""
        self.failure: Exception | None = None
        self.keyed: list[str] = []  # each asks for the store's key

    def in_profile(self, profile: str) -> Vault:
        other = Vault()
        other.kept, other.profile, other.failure, other.keyed = self.kept, profile, self.failure, self.keyed
        return other

    def load(self, name: str) -> Credential:
        self.keyed.append(name)
        if self.failure is not None:
            raise self.failure
        if (self.profile, name) not in self.kept:
            raise GrantMissing(f"no {name} credential is stored")
        return self.kept[self.profile, name]

    def mark(self, name: str) -> str:
        if self.failure is not None:
            raise self.failure
        kept = self.kept.get((self.profile, name))
        return f"{kept} {kept.secret}" if kept is not None else ""

    def save(self, credential: Credential) -> None:
        self.kept[self.profile, credential.provider] = credential


@dataclass
class Scene:
    server: TokenServer
    clock: TestClock
    vault: Vault
    refreshers: Refreshers
    used: set[Key]
    renewed: list[tuple[str, str, str]] = field(default_factory=list)
    told: list[GrantState] = field(default_factory=list)
    learnt: list[str] = field(default_factory=list)

    @property
    def state(self) -> GrantState:
        (state,) = self.refreshers.states()
        return state

    @property
    def token(self) -> str:
        return self.vault.kept["", "apple"].secret

    async def waits(self) -> None:
        """Wait until every refresher waits for its time."""
        await until(lambda: len(self.clock.waiting) == len(self.refreshers.states()))

    async def later(self, seconds: float) -> None:
        """Let time pass in small steps, as it does."""
        await self.waits()
        for _ in range(20):
            self.clock.passes(seconds / 20)
            await asyncio.sleep(0.005)
            await self.waits()


@asynccontextmanager
async def a_scene(source: str = "device flow", **changes: Any) -> AsyncIterator[Scene]:
    server, clock, vault = TokenServer(), TestClock(), Vault()
    vault.kept["", "apple"] = replace(Credential("apple", "tok-s3cr3t-0", source), **changes)
    used: set[Key] = {("", "apple")}
    host: Callable[[str], Host] = lambda _: FakeHost()  # noqa: E731 # a callable of one line
    scene: Scene

    async def renew(profile: str, grant: str) -> None:
        scene.renewed.append((profile, grant, vault.kept[profile, grant].secret))

    means = Means(
        vault, lambda _: Apple(server, clock), host, renew, lambda state: scene.told.append(state),
        lambda secret: scene.learnt.append(secret), clock,
    )  # fmt: skip
    refreshers = Refreshers(means, lambda: used)
    scene = Scene(server, clock, vault, refreshers, used)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(refreshers.forever())
        refreshers.changed()
        await until(lambda: refreshers.states() != () and clock.waiting != {})
        try:
            yield scene
        finally:
            serving.cancel()


class Slowly:
    """Has a token server answer when it is told to. is_asked: it has taken the old token, and made the next one."""

    def __init__(self, server: TokenServer) -> None:
        self.is_asked, self.goes_on = asyncio.Event(), asyncio.Event()
        self._renew = server.renew
        server.renew = self.renew  # type: ignore[method-assign] # between its two halves is where things get lost

    async def renew(self, token: str, clock: TestClock) -> Credential:
        renewed = await self._renew(token, clock)
        self.is_asked.set()
        await self.goes_on.wait()
        return renewed
