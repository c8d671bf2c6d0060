"""Questions that runs ask at endpoints whose provider answers: checked, taken to the provider, answered or not.

    worker ─ Ask ─▶ take ─▶ that run's endpoint? ─▶ credential, as stored now ─▶ provider.respond ─▶ Answered ─▶ worker
                              └────────────────────────┴─ no, or it fails, or takes long ─▶ Answered(None): a 502

Each in a task of its own, bounded in time; the worker bounds their number. What goes wrong is said in the log only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from moat.api.credentials import Credential
from moat.api.endpoints import Question, Reply, Respond
from moat.api.errors import MoatError, PluginError
from moat.daemon.given import aws_credential
from moat.daemon.registry import Entry, Registry
from moat.proxy.messages import Answered, Ask

RESPOND_S = 10.0  # a service behind the provider answers within that, or its client tries again

log = logging.getLogger(__name__)


class Vault(Protocol):
    """The store, as far as it is needed here. Blocking."""

    def load(self, name: str) -> Credential:
        """Return a credential. Raises GrantMissing, StoreError."""
        ...

    def in_profile(self, profile: str) -> Vault:
        """Return the store of a profile."""
        ...


class Responders(Protocol):
    """Who answers: the plugins."""

    async def respond(self, question: Question, credential: Credential) -> Reply:
        """Return the answer of credential's provider. Raises PluginError."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What it is done with. learn: what no log may show. answer: the worker."""

    registry: Registry
    vault: Vault
    plugins: Responders
    learn: Callable[[str], None]
    answer: Callable[[Answered], None]


class Answers:
    """The questions under way. Used by one event loop."""

    def __init__(self, means: Means, limit_s: float = RESPOND_S) -> None:
        self._means = means
        self._limit_s = limit_s
        self._waiting: asyncio.Queue[Ask] = asyncio.Queue()

    def take(self, ask: Ask) -> None:
        """Take a question; its answer goes to the worker when it is there."""
        self._waiting.put_nowait(ask)

    async def forever(self) -> None:
        """Answer what comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                ask = await self._waiting.get()
                group.create_task(self._answer(ask))

    async def _answer(self, ask: Ask) -> None:
        facts = {"run_id": ask.question.run_id, "grant": ask.grant, "endpoint": ask.question.name}
        reply: Reply | None = None
        try:
            async with asyncio.timeout(self._limit_s):
                reply = await self._reply(ask)
        except TimeoutError:
            log.warning("a provider took too long to answer", extra=facts)
        except MoatError as failure:
            log.warning("an endpoint was not answered", extra={**facts, "problem": failure.problem})
        except Exception:  # the top of a task: one question's trouble is nobody else's
            log.exception("a question failed", extra=facts)
        self._means.answer(Answered(ask.id, reply))

    async def _reply(self, ask: Ask) -> Reply:
        entry = self._means.registry.get(ask.question.run_id)
        if entry is None or not _is_there(entry, ask):
            raise PluginError("the run has no such endpoint")
        credential = await asyncio.to_thread(self._credential, entry, ask.grant)
        self._means.learn(credential.secret)
        reply = await self._means.plugins.respond(ask.question, credential)
        for secret in reply.secrets:
            self._means.learn(secret)
        return reply

    def _credential(self, entry: Entry, grant: str) -> Credential:
        """Return a grant's credential as it is now; that of a role came with the registration."""
        if grant == "aws" and entry.extras.aws_config is not None:
            return aws_credential(entry.extras.aws_config)
        return self._means.vault.in_profile(entry.info.profile).load(grant)


def _is_there(entry: Entry, ask: Ask) -> bool:
    """Whether the run has this endpoint: the worker, which parses hostile bytes, is not taken at its word."""
    return entry.context.is_open and any(
        isinstance(each.how, Respond) and (each.grant, each.how.name) == (ask.grant, ask.question.name)
        for each in entry.context.endpoints
    )
