from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from moat.api.errors import AuditUnwritable, UsageError
from moat.daemon.audit_api import AuditHandlers
from moat.daemon.client import DaemonClient
from moat.daemon.protocol import NoteRequest
from moat.daemon.server import Server, bind, serve
from moat.paths import Home

from core.daemon.making import RUN_ID


class Service:
    def __init__(self) -> None:
        self.happened: list[Any] = []

    async def noted(self, chain: str, kind: str, facts: Mapping[str, object], at: str = "") -> None:
        if kind == "revoked":
            raise AuditUnwritable("the audit cannot be written: no space left on the disk", hint="run: moat doctor")
        self.happened.append((chain, kind, dict(facts), at))

    async def flushed(self) -> None:
        self.happened.append("sealed")


async def test_notes_and_seals_reach_the_audit_and_its_refusal_the_client(tmp_path: Any) -> None:
    import asyncio

    home, service = Home(tmp_path / "home"), Service()
    server = Server(None, lambda: None, lambda: None, AuditHandlers(service).add_to)  # type: ignore[arg-type,return-value] # not asked
    runner: web.AppRunner = await serve(server.application(), bind(home.daemon / "daemon.sock"))
    client = DaemonClient(home)
    try:
        await asyncio.to_thread(client.note, NoteRequest("granted", {"grant": "apple"}, at="2026-01-01T00:00:00+00:00"))
        await asyncio.to_thread(client.note, NoteRequest("exec", {"program": "sh"}, RUN_ID))
        await asyncio.to_thread(client.seal)
        with pytest.raises(AuditUnwritable, match="no space left"):
            await asyncio.to_thread(client.note, NoteRequest("revoked"))
        for wrong in (NoteRequest("granted", at="yesterday"), NoteRequest("granted", {}, "../x"),
                      NoteRequest("used")):  # type: ignore[arg-type] # on purpose  # fmt: skip
            with pytest.raises(UsageError):
                await asyncio.to_thread(client.note, wrong)
    finally:
        await runner.cleanup()

    assert service.happened == [
        ("installation", "granted", {"grant": "apple"}, "2026-01-01T00:00:00+00:00"),
        (RUN_ID, "exec", {"program": "sh"}, ""),
        "sealed",
    ]
