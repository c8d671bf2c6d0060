"""A real gRPC server (grpcio) over TLS on loopback, in a process of its own, and a client likewise. Messages are bytes.

    async with grpc_service(folder, ca, authorization) as service: … 127.0.0.1:{service.port} …; service.seen
    result = await grpc_call(proxy, ca_file, "hello", "world")

/demo.Service/  Hello  one answer, with a trailer      Count  n answers      Echo  both ways, message by message
                Fail   ALREADY_EXISTS                  Wait   until the client cancels
                Repeat the authorization, in gzip where its client takes that; the client too with a second word
a call of Converse says its words to Echo, each once the one before was answered
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.upstream import MadeCa

PATIENCE_S = 30.0


@dataclass
class GrpcService:
    """The running server. seen: method and authorization of each call. cancelled: how many calls clients gave up."""

    port: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def learn(self, news: dict[str, Any]) -> None:
        match news:
            case {"port": port}:
                self.port = port
                self.ready.set()
            case {"method": method, "authorization": authorization}:
                self.seen.append((method, authorization))
            case {"waiting": True}:
                self.waiting.set()
            case {"cancelled": True}:
                self.cancelled.set()


@contextlib.asynccontextmanager
async def grpc_service(folder: Path, ca: MadeCa, authorization: str, *names: str) -> AsyncIterator[GrpcService]:
    """Run the server; it demands authorization and has a certificate for names."""
    (folder / "grpc.pem").write_bytes(b"".join(ca.leaf(names, expired=False)))
    argv = [sys.executable, "-m", "support.grpc_program", "serve", str(folder / "grpc.pem"), authorization]
    process = await asyncio.create_subprocess_exec(*argv, stdin=-1, stdout=-1, cwd=Path(__file__).parent.parent)
    service = GrpcService()
    try:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(_follow(process, service))
            async with asyncio.timeout(PATIENCE_S):
                await service.ready.wait()
            yield service
            following.cancel()
    finally:
        assert process.stdin is not None
        process.stdin.close()  # the program ends with its standard input
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()


async def _follow(process: asyncio.subprocess.Process, service: GrpcService) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        service.learn(json.loads(line))


async def grpc_call(proxy: str, ca_file: Path | None, target: str, *words: str) -> dict[str, Any]:
    """Make one call with grpcio through proxy; return what the program says. A target `unix:…` is called in clear."""
    env = {"https_proxy": proxy, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(ca_file), "PATH": "/usr/bin:/bin"}
    argv = [sys.executable, "-m", "support.grpc_program", "call", target, *words]
    process = await asyncio.create_subprocess_exec(*argv, stdout=-1, env=env, cwd=Path(__file__).parent.parent)
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    found: dict[str, Any] = json.loads(out)
    return found
