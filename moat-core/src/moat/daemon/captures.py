"""Tokens that runs were handed by a token endpoint: stored, put into every run that spends the grant, acknowledged.

    worker ─ Captured ─▶ take ─▶ rule there? ─▶ provider.captured ─▶ stored ─▶ renewed in all runs ─▶ Kept ─▶ worker
                                   └────────────────┴─ no, or it fails ─▶ Kept(problem): the client gets an error

One after the other, also for a run that has just ended: a refresh token is spent, and only these take its place. The
worker parses hostile bytes: its word changes only a grant that a rule of that run names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from moat.api.credentials import CapturedTokens, Credential, CredentialProvider
from moat.api.endpoints import Forward
from moat.api.errors import GrantFailed, MoatError
from moat.api.rules import CaptureToken
from moat.api.runs import RunContext
from moat.daemon.registry import Entry, Registry
from moat.proxy.messages import Captured, Kept

MAX_TOKENS, MAX_TOKEN_CHARS = 16, 16_384

log = logging.getLogger(__name__)


class Vault(Protocol):
    """The store, as far as it is needed here. Blocking."""

    def load(self, name: str) -> Credential:
        """Return a credential. Raises GrantMissing, StoreError."""
        ...

    def save(self, credential: Credential) -> None:
        """Keep a credential. Raises StoreError."""
        ...

    def in_profile(self, profile: str) -> Vault:
        """Return the store of a profile."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What it is done with. renew: (profile, grant) into every run. learn: what no log may show. answer: the worker."""

    registry: Registry
    vault: Vault
    provider: Callable[[str], CredentialProvider]
    learn: Callable[[str], None]
    renew: Callable[[str, str], Awaitable[None]]
    answer: Callable[[Kept], None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


class Captures:
    """The queue of what was captured. Used by one event loop."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._waiting: asyncio.Queue[Captured] = asyncio.Queue()

    def take(self, message: Captured) -> None:
        """Take what the worker reports; its answer comes when it is done."""
        for token in message.tokens.values():
            self._means.learn(token)
        self._waiting.put_nowait(message)

    async def forever(self) -> None:
        """Keep what comes, until cancelled."""
        while True:
            message = await self._waiting.get()
            facts = {"run_id": message.run_id, "grant": message.grant}
            try:
                await self._keep(message)
                problem = ""
                log.info("tokens were captured", extra=facts)
            except (MoatError, OSError) as failure:
                problem = failure.problem if isinstance(failure, MoatError) else "the disk says no"
                log.error("captured tokens could not be kept", extra={**facts, "problem": problem})
            except Exception:  # the top of a task: a provider's mistake must not end the daemon
                problem = "its provider failed; the daemon's log says how"
                log.exception("captured tokens could not be kept", extra=facts)
            self._means.answer(Kept(message.id, problem))

    async def _keep(self, message: Captured) -> None:
        """Store the tokens and put them in force. Raises MoatError, OSError, and whatever a provider raises."""
        entry = self._means.registry.recent(message.run_id)
        if entry is None or not _is_ruled(entry.context, message):
            raise GrantFailed("no run has a rule for them")
        await asyncio.to_thread(self._stored, entry, message)
        await self._means.renew(entry.info.profile, message.grant)

    def _stored(self, entry: Entry, message: Captured) -> None:
        vault = self._means.vault.in_profile(entry.info.profile)
        before = vault.load(message.grant)
        expires_at = self._means.now() + timedelta(seconds=message.expires_in) if message.expires_in > 0 else None
        found = CapturedTokens(dict(message.tokens), expires_at)
        after = self._means.provider(message.grant).captured(before, found)
        if after.provider != before.provider:
            raise GrantFailed(f"the provider made a credential for {after.provider!r}")
        vault.save(after)


def _is_ruled(context: RunContext, message: Captured) -> bool:
    """Whether a rule of the run says that these tokens are captured for that grant."""
    if not 0 < len(message.tokens) <= MAX_TOKENS or any(
        not 0 < len(token) <= MAX_TOKEN_CHARS for token in message.tokens.values()
    ):
        return False
    return any(rule.grant == message.grant and rule.tokens.keys() >= message.tokens.keys() for rule in _rules(context))


def _rules(context: RunContext) -> Iterator[CaptureToken]:
    forwards = [endpoint.how for endpoint in context.endpoints if isinstance(endpoint.how, Forward)]
    for rule in (*context.rules, *(rule for forward in forwards for rule in forward.rules)):
        if isinstance(rule, CaptureToken):
            yield rule
