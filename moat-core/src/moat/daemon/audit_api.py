"""The management API's handlers for the audit: what the user did beside the daemon, and that all is signed now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from aiohttp import web

from moat.api.errors import UsageError
from moat.audit.chain import INSTALLATION
from moat.daemon.protocol import NoteRequest
from moat.daemon.server import body_of
from moat.ids import checked_run_id


class Service(Protocol):
    """What is called; `Auditor` in the daemon."""

    async def noted(self, chain: str, kind: str, facts: Mapping[str, object], at: str = "") -> None: ...  # it says it
    async def flushed(self) -> None: ...  # it says it


class AuditHandlers:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, app: web.Application) -> None:
        """Add them to the API."""
        app.router.add_post("/v1/audit", self._note)
        app.router.add_post("/v1/audit/seal", self._seal)

    async def _note(self, request: web.Request) -> web.Response:
        note = await body_of(request, NoteRequest)
        if note.at and not _is_time(note.at):
            raise UsageError("at is no time", hint="leave it out for now")
        chain = checked_run_id(note.run_id) if note.run_id else INSTALLATION
        await self._service.noted(chain, note.kind, note.facts, note.at)
        return web.Response(status=204)

    async def _seal(self, request: web.Request) -> web.Response:
        del request
        await self._service.flushed()
        return web.Response(status=204)


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return len(text) <= 40
