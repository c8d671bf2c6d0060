"""Keeps the credentials of live runs fresh: one refresher for each grant of a profile, however many runs spend it.

    in use ─▶ load ─▶ wait: interval, expiry, back-off; a 401 upstream ends it early ─▶ provider.refresh ─▶ stored ─▶
                ▲                                                                                            renewed
                └─ granted anew by the user, seen within half a minute ◀─ static · revoked ◀─────────────────────┘

Knows no runs: what is in use, and what follows from a new value, are callables. A credential from the environment is
static, since its owner renews it elsewhere. A service may take a token once only: what was begun with it goes on until
the next one is stored, though the last run ends meanwhile, and is waited for, bounded, when the daemon leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, Protocol, TypeAlias

from moat.api.credentials import Credential, CredentialProvider, Host
from moat.api.errors import GrantFailed, GrantRevoked, MoatError
from moat.daemon import pace
from moat.daemon.protocol import GrantState

Key: TypeAlias = tuple[str, str]  # profile, grant
BROKEN = "its provider failed; the daemon's log says how"
REFRESH_TIMEOUT_S = 60.0
SETTLE_S = 8.0  # when the daemon leaves: what waits for it does so for 15 s and longer

log = logging.getLogger(__name__)


class Vault(Protocol):
    """The store, as refreshing needs it. Blocking."""

    def load(self, name: str) -> Credential:
        """Return a credential. Raises StoreError, GrantMissing."""
        ...

    def mark(self, name: str) -> str:
        """Return what tells a credential from the next one, without the store's key. Raises like load."""
        ...

    def save(self, credential: Credential) -> None:
        """Keep a credential. Raises StoreError."""
        ...

    def in_profile(self, profile: str) -> Vault:
        """Return the store of a profile."""
        ...


class Clock(Protocol):
    """Time and chance; the tests have their own."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from some moment on; nobody sets them, and they may stand still while a machine sleeps."""
        ...

    def roll(self) -> float:
        """Return a number between 0 and 1, by chance."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when event is set, or after seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What refreshing is done with.

    renew: puts a changed credential, or its end, into every run that spends it. learn: takes what no log may show.
    """

    vault: Vault
    provider: Callable[[str], CredentialProvider]
    host: Callable[[str], Host]
    renew: Callable[[str, str], Awaitable[None]]
    tell: Callable[[GrantState], None]
    learn: Callable[[str], None]
    clock: Clock


@dataclass(slots=True)
class _Refresher:
    """One grant of one profile. last: when renewing was tried."""

    state: GrantState
    nudge: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    last: datetime | None = None


class Refreshers:
    """All of them. Used by one event loop."""

    def __init__(self, means: Means, in_use: Callable[[], Collection[Key]]) -> None:
        self._means = means
        self._in_use = in_use
        self._known: dict[Key, _Refresher] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._spending: dict[Key, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Take it that other grants may be in use now."""
        self._changed.set()

    def states(self) -> tuple[GrantState, ...]:
        """Return what is known about each grant in use, by profile and name."""
        return tuple(self._known[key].state for key in sorted(self._known))

    def revoked(self, profile: str, grant: str) -> str:
        """Return why a grant is not renewed any more, "" if it is."""
        found = self._known.get((profile, grant))
        return found.state.problem if found is not None and found.state.state == "revoked" else ""

    def rejected(self, profile: str, grant: str) -> None:
        """Take it that a service answered 401 to a credential: the next renewal comes early, once."""
        found = self._known.get((profile, grant))
        if found is None or found.state.state == "revoked":
            return
        if found.state.state == "static":
            found.state = replace(found.state, problem="its service answered 401")
        elif pace.is_early_allowed(self._means.clock.now(), found.last):
            found.last = self._means.clock.now()
            found.nudge.set()

    async def forever(self) -> None:
        """Follow what is in use, until cancelled; then bring to its end, bounded, what a service was already asked."""
        async with asyncio.TaskGroup() as group:
            try:
                await self._follow_use(group)
            finally:
                for task in self._tasks.values():
                    task.cancel()
                if self._spending:
                    await asyncio.wait(self._spending.values(), timeout=SETTLE_S)

    async def _follow_use(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = set(self._in_use())
            for key in self._tasks.keys() - wanted:
                self._tasks.pop(key).cancel()
                del self._known[key]
            for key in sorted(wanted - self._tasks.keys()):
                one = self._known[key] = _Refresher(GrantState(*key))
                self._tasks[key] = group.create_task(self._follow(key, one, group), name=f"refresh {key[1]}")

    async def _follow(self, key: Key, one: _Refresher, group: asyncio.TaskGroup) -> None:
        if key in self._spending:  # of runs before: its token is spent, and is replaced in a moment
            await asyncio.wait([self._spending[key]])
        while True:
            try:
                await self._round(key, one, group)
            except Exception:  # the top of a task: a provider's mistake must not end the daemon
                log.exception("a credential could not be renewed", extra={"grant": key[1]})
                await self._fail(key, one, BROKEN)

    async def _round(self, key: Key, one: _Refresher, group: asyncio.TaskGroup) -> None:
        """Wait until the credential is due, and renew it."""
        try:
            provider = self._means.provider(key[1])
            mark, before = await self._mark(key), await self._load(key)
        except MoatError as failure:
            return await self._fail(key, one, failure.problem)
        if one.state.state == "revoked" or is_static(provider, before):
            return await self._look(key, one, before, mark)
        now = self._means.clock.now()
        left_s = (before.expires_at - now).total_seconds() if before.expires_at else None
        await self._pause(one, "fresh" if not one.failures else "failing", before, provider, left_s)
        if await self._is_same(key, mark):
            spending = self._spend(key, one, provider, before)
            self._spending[key] = group.create_task(spending, name=f"spend {key[1]}")
            await asyncio.shield(self._spending[key])
        else:
            await self._renew(key, one, "fresh")

    async def _spend(self, key: Key, one: _Refresher, provider: CredentialProvider, before: Credential) -> None:
        """Renew a credential and keep the next one. A task of its own: nobody but the daemon's end cancels it."""
        try:
            await self._refresh(key, one, provider, before)
        except Exception:  # the top of a task, as above
            log.exception("a credential could not be renewed", extra={"grant": key[1]})
            await self._failed(one, BROKEN)
        finally:
            del self._spending[key]

    async def _refresh(self, key: Key, one: _Refresher, provider: CredentialProvider, before: Credential) -> None:
        one.last = self._means.clock.now()
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_S):
                after = await provider.refresh(before, await asyncio.to_thread(self._means.host, key[1]))
            self._means.learn(after.secret)
            if after.provider != before.provider:
                raise GrantFailed(f"the provider made a credential for {after.provider!r}")
            if after != before:
                await self._keep(key, before, after)
        except GrantRevoked as failure:
            log.error("a credential was revoked", extra={"grant": key[1], "problem": failure.problem})
            await self._renew(key, one, "revoked", failure.problem)
        except MoatError as failure:
            await self._failed(one, failure.problem)
        except TimeoutError:
            await self._failed(one, f"its service did not answer in {REFRESH_TIMEOUT_S:g} s")
        else:
            log.info("a credential was renewed", extra={"grant": key[1], "profile": key[0]})
            self._show(one, replace(one.state, problem="", refreshed_at=_iso(one.last)))
            await self._renew(key, one, "fresh")

    async def _keep(self, key: Key, before: Credential, after: Credential) -> None:
        """Store what was renewed, unless the user granted another one meanwhile."""
        vault = self._means.vault.in_profile(key[0])

        def save() -> None:
            if vault.load(key[1]).secret == before.secret:
                vault.save(after)

        await asyncio.to_thread(save)

    async def _look(self, key: Key, one: _Refresher, before: Credential, mark: str) -> None:
        """Wait for another credential in the place of one that is not renewed. Never asks for the store's key."""
        state: Literal["revoked", "static"] = "revoked" if one.state.state == "revoked" else "static"
        self._show(one, replace(one.state, state=state, expires_at=_iso(before.expires_at), next_at=""))
        while await self._is_same(key, mark):
            await self._means.clock.wait(one.nudge, pace.LOOK_AGAIN_S)
            one.nudge.clear()
        await self._renew(key, one, "fresh")

    async def _pause(
        self, one: _Refresher, state: Literal["fresh", "failing"], credential: Credential,
        provider: CredentialProvider, left_s: float | None,
    ) -> None:  # fmt: skip
        clock, every_s = self._means.clock, provider.refresh_every_s
        shortest_s = pace.SHORTEST_S if one.last is None else min(every_s, pace.EARLY_PAUSE_S)
        seconds = pace.delay(every_s, left_s, one.failures, clock.roll(), shortest_s)
        end = clock.monotonic() + seconds
        due = datetime.fromtimestamp(clock.now().timestamp() + seconds, UTC)
        expires_at = _iso(credential.expires_at)
        self._show(one, replace(one.state, state=state, expires_at=expires_at, next_at=_iso(due)))
        # Whichever comes first, and in parts: a machine may sleep meanwhile, and its clock may be set back.
        while (
            not one.nudge.is_set() and (left := min((due - clock.now()).total_seconds(), end - clock.monotonic())) > 0
        ):
            await clock.wait(one.nudge, min(left, pace.LOOK_AGAIN_S))
        is_rejected = one.nudge.is_set()
        one.nudge.clear()
        if is_rejected and provider.client_renews_s:  # a refresh token that both spent would be taken for a stolen one
            await clock.wait(one.nudge, provider.client_renews_s)
            one.nudge.clear()

    async def _fail(self, key: Key, one: _Refresher, problem: str) -> None:
        """Wait after something that has nothing to do with the service."""
        await self._failed(one, problem)
        log.warning("a credential cannot be renewed", extra={"grant": key[1], "problem": problem})
        clock = self._means.clock
        await clock.wait(one.nudge, pace.delay(pace.MAX_RETRY_S, None, one.failures, clock.roll()))
        one.nudge.clear()

    async def _failed(self, one: _Refresher, problem: str) -> None:
        one.failures += 1
        self._show(one, replace(one.state, state="failing", problem=problem))

    async def _renew(self, key: Key, one: _Refresher, state: Literal["fresh", "revoked"], problem: str = "") -> None:
        one.failures = 0
        self._show(one, replace(one.state, state=state, problem=problem, next_at=""))
        await self._means.renew(*key)

    async def _is_same(self, key: Key, mark: str) -> bool:
        try:
            return await self._mark(key) == mark
        except MoatError:
            return True  # revoked or unreadable meanwhile: the next round says so

    async def _mark(self, key: Key) -> str:
        return await asyncio.to_thread(self._means.vault.in_profile(key[0]).mark, key[1])

    async def _load(self, key: Key) -> Credential:
        return await asyncio.to_thread(self._means.vault.in_profile(key[0]).load, key[1])

    def _show(self, one: _Refresher, state: GrantState) -> None:
        known, one.state = one.state, state
        if replace(known, next_at="", expires_at="") != replace(state, next_at="", expires_at=""):
            self._means.tell(state)


def is_static(provider: CredentialProvider, credential: Credential) -> bool:
    """Whether a credential is not renewed here: its provider cannot, or it came out of the environment."""
    return provider.refresh_every_s <= 0 or credential.source in getattr(provider, "variables", ())


def _iso(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment is not None else ""
