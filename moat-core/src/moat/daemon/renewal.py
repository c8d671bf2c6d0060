"""Puts what became of a credential into every live run that spends it: new rules, in open tunnels too, or its end.

(profile, grant) ─▶ runs that spend it ─▶ grants resolved again ─▶ context replaced ─▶ worker
                                            └─ revoked: 401 answers of its hosts say so, and what to type
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from moat.api.errors import MoatError
from moat.api.rules import Instead, Match, RewriteResponse, Rule
from moat.daemon.parts import Parts
from moat.daemon.registry import Entry
from moat.daemon.restore import served, spec_again

ATTEMPTS = 3  # a run may be registered again while its grants are resolved

log = logging.getLogger(__name__)


class Renewal:
    """revoked: why a grant of a profile is not renewed any more, "" if it is."""

    def __init__(self, parts: Parts, revoked: Callable[[str, str], str]) -> None:
        self._parts = parts
        self._revoked = revoked

    def in_use(self) -> set[tuple[str, str]]:
        """Return profile and name of every grant that a live run spends."""
        return {(entry.info.profile, grant) for entry in self._parts.registry for grant in spent_by(entry)}

    async def renew(self, profile: str, grant: str) -> None:
        """Put a grant's credential, as it is stored now, into every run that spends it."""
        for entry in self._parts.registry:
            if entry.info.profile == profile and grant in spent_by(entry):
                await self._renewed(entry.run_id)

    async def _renewed(self, run_id: str) -> None:
        for _ in range(ATTEMPTS):
            entry = self._parts.registry.get(run_id)
            if entry is None or entry.context.why_closed:
                return  # ended, or still to be resolved for the first time
            try:
                resolved = await asyncio.to_thread(self._parts.grants.resolve, spec_again(entry), entry.extras)
            except MoatError as failure:
                log.warning("a run keeps its credentials", extra={"run_id": run_id, "problem": failure.problem})
                return
            current = self._parts.registry.get(run_id)
            if current is not None and current.context is entry.context:
                context = served(current.context, resolved, is_open=current.context.is_open)
                told = tuple(self._told(entry, context.rules))
                context = replace(context, rules=(*told, *context.rules))
                self._parts.registry.replace(replace(current, context=context))
                self._parts.worker.put(context)
                return

    def _told(self, entry: Entry, rules: Iterable[Rule]) -> Iterable[Rule]:
        ends = {grant: self._revoked(entry.info.profile, grant) for grant in spent_by(entry)}
        for grant, authority in dict.fromkeys((rule.grant, rule.match.authority) for rule in rules):
            if problem := ends.get(grant, ""):
                yield revocation_told(grant, authority, entry.info.profile, problem)


def spent_by(entry: Entry) -> tuple[str, ...]:
    """Return the names of the stored grants that a run spends."""
    servers = (server.grant for server in entry.extras.mcp_servers if server.grant)
    return tuple(dict.fromkeys((*entry.info.grants, *servers)))


def revocation_told(grant: str, authority: str, profile: str, problem: str) -> RewriteResponse:
    """Return the rule that tells the run why its requests are not accepted, and what would help."""
    option = f"--profile {profile} " if profile else ""
    message = f"moat: {problem}; ask the user to run: moat grant {option}{grant}"
    body = json.dumps({"error": {"code": "GrantRevoked", "message": message}})
    how = Instead(401, body + "\n")
    return RewriteResponse(Match(authority), how, statuses=(401,), kinds=(), grant=grant)
