"""What runs need of a provider while they wait: answers at its endpoints, signatures. Checked, taken to it, answered.

    worker ─ Ask ─▶ take ─▶ that run's endpoint? ─▶ credential, as stored now ─▶ provider.respond ─▶ Answered ─▶ worker
                              └────────────────────────┴─ no, or it fails, or takes long ─▶ Answered(None): a 502
    worker ─ AskSignature ─▶ take ─▶ that run's rule? ─▶ credential ─▶ provider.sign ─▶ Signature ─▶ worker

Each in a task of its own, bounded in time; the worker bounds their number. What goes wrong is said in the log only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from moat.api.credentials import Credential, CredentialProvider
from moat.api.endpoints import Question, Reply, Respond
from moat.api.errors import GrantFailed, MoatError, PluginError
from moat.api.rules import Sign
from moat.api.signing import Signed, Unsignable
from moat.daemon.given import aws_credential
from moat.daemon.registry import Entry, Registry
from moat.net.authority import from_host
from moat.net.hosts import HostPattern
from moat.proxy.admit import is_wide
from moat.proxy.messages import Answered, Ask, AskSignature, Signature

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
    """What it is done with. provider: finds whose a grant is. learn: what no log may show. answer: the worker."""

    registry: Registry
    vault: Vault
    plugins: Responders
    provider: Callable[[str], CredentialProvider]
    learn: Callable[[str], None]
    answer: Callable[[Answered | Signature], None]


class Answers:
    """The questions under way. Used by one event loop."""

    def __init__(self, means: Means, limit_s: float = RESPOND_S) -> None:
        self._means = means
        self._limit_s = limit_s
        self._waiting: asyncio.Queue[Ask | AskSignature] = asyncio.Queue()

    def take(self, ask: Ask | AskSignature) -> None:
        """Take a question; its answer goes to the worker when it is there."""
        self._waiting.put_nowait(ask)

    async def forever(self) -> None:
        """Answer what comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                ask = await self._waiting.get()
                group.create_task(self._answer(ask) if isinstance(ask, Ask) else self._sign(ask))

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

    async def _sign(self, ask: AskSignature) -> None:
        facts = {"run_id": ask.request.run_id, "grant": ask.grant, "host": ask.request.authority}
        answer = Signature(ask.id)
        try:
            async with asyncio.timeout(self._limit_s):
                answer = Signature(ask.id, await self._signed(ask))
        except TimeoutError:
            log.warning("a provider took too long to sign", extra=facts)
        except Unsignable as refusal:
            answer = Signature(ask.id, None, refusal.problem, refusal.status, refusal.content_type, refusal.body)
        except GrantFailed as failure:  # made for users: it names no secret
            log.warning("a request was not signed", extra={**facts, "problem": failure.problem})
            answer = Signature(ask.id, None, f"{failure.problem}; on the host: {failure.hint}")
        except MoatError as failure:
            log.warning("a request was not signed", extra={**facts, "problem": failure.problem})
        except Exception:  # the top of a task: one request's trouble is nobody else's
            log.exception("a request was not signed", extra=facts)
        self._means.answer(answer)

    async def _reply(self, ask: Ask) -> Reply:
        entry = self._means.registry.get(ask.question.run_id)
        if entry is None or not _is_there(entry, ask):
            raise PluginError("the run has no such endpoint")
        credential = await self._learnt(entry, ask.grant)
        reply = await self._means.plugins.respond(ask.question, credential)
        for secret in reply.secrets:
            self._means.learn(secret)
        return reply

    async def _signed(self, ask: AskSignature) -> Signed:
        entry = self._means.registry.get(ask.request.run_id)
        if entry is None or not _is_signed(entry, ask):
            raise PluginError("the run has no rule that this be signed")
        credential = await self._learnt(entry, ask.grant)
        signed = await self._means.provider(credential.provider).sign(ask.request, credential)
        if not isinstance(signed, Signed):
            raise PluginError(f"{ask.grant} signed with {type(signed).__name__}, not with a Signed")
        for secret in signed.secrets:
            self._means.learn(secret)
        return signed

    async def _learnt(self, entry: Entry, grant: str) -> Credential:
        credential = await asyncio.to_thread(self._credential, entry, grant)
        self._means.learn(credential.secret)
        return credential

    def _credential(self, entry: Entry, grant: str) -> Credential:
        """Return a grant's credential as it is now; that of a role came with the registration."""
        if grant == "aws" and entry.extras.aws_config is not None:
            return aws_credential(entry.extras.aws_config)
        return self._means.vault.in_profile(entry.info.profile).load(grant)


def _is_signed(entry: Entry, ask: AskSignature) -> bool:
    """Whether the run has a rule that says so: as below, the worker is not taken at its word."""
    authority = from_host(ask.request.authority, "https")
    return entry.context.is_open and any(
        isinstance(rule, Sign)
        and rule.grant == ask.grant
        and (
            HostPattern.parse(rule.match.authority).matches(authority)
            if is_wide(rule)
            else from_host(rule.match.authority, "https") == authority
        )
        for rule in entry.context.rules
    )


def _is_there(entry: Entry, ask: Ask) -> bool:
    """Whether the run has this endpoint: the worker, which parses hostile bytes, is not taken at its word."""
    return entry.context.is_open and any(
        isinstance(each.how, Respond) and (each.grant, each.how.name) == (ask.grant, ask.question.name)
        for each in entry.context.endpoints
    )
