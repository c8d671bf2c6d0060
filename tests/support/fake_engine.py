"""A container engine made of canned answers, on a unix socket: for what a test must not do to a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "KernelVersion": "6.1.0"}
Answer = tuple[int, object]


@dataclass
class FakeEngine:
    """answers: "METHOD path" without version and query → status and JSON. calls: what was asked, in order."""

    answers: dict[str, Answer]
    calls: list[str] = field(default_factory=list)
    queries: dict[str, Mapping[str, str]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    events: dict[str, asyncio.Event] = field(default_factory=dict)
    server: str = "Docker/20.10.24 (linux)"  # what it calls itself, and its version

    async def asked(self, call: str) -> None:
        """Return when call has come in; its answer may still be on the way."""
        await self.events.setdefault(call, asyncio.Event()).wait()

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/v1.41").lstrip("/")
        call = f"{request.method} {path}"
        self.calls.append(call)
        self.events.setdefault(call, asyncio.Event()).set()
        self.queries[call] = dict(request.query)
        self.bodies[call] = await request.read()
        status, body = self.answers.get(call, (404, {"message": f"no such thing: {call}"}))
        headers = {"Server": self.server, "Api-Version": str(VERSION["ApiVersion"])}
        return web.Response(status=status, body=json.dumps(body), content_type="application/json", headers=headers)


@contextlib.asynccontextmanager
async def fake_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answers: Mapping[str, Answer]
) -> AsyncIterator[FakeEngine]:
    """Serve answers where aiodocker looks for an engine."""
    engine = FakeEngine({"GET version": (200, VERSION), "GET _ping": (200, "OK"), **answers})
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    path = folder / "engine.sock"
    await web.UnixSite(runner, str(path)).start()
    use_engine_at(path, monkeypatch)
    try:
        yield engine
    finally:
        await runner.cleanup()


def use_engine_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have aiodocker use this socket, whatever the machine's own settings say."""
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
