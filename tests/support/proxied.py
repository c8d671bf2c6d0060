"""A worker between a run and an upstream, ready to be asked by curl and others."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from moat.api.rules import Match, Rule, SetHeader
from moat.api.runs import NetworkPolicy

from support.upstream import Upstream, running_upstream
from support.worker import RUN, RunningWorker, a_run, running_worker

HOST = "api.example.com"
SECRET = "Bearer s3cr3t-of-the-upstream"
RULE = SetHeader(Match(HOST), "Authorization", SECRET, "example")


@dataclass
class Proxied:
    """What a test needs: the worker, what it talks to, and where its proxy door is."""

    worker: RunningWorker
    upstream: Upstream
    proxy: str

    async def curl(self, *arguments: str, proxy: str = "", stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run curl through the proxy door, trusting the CA."""
        argv = ["curl", "-sS", "--max-time", "30", "--cacert", str(self.worker.ca_file), "-x", proxy or self.proxy]
        return await run(*argv, *arguments, stdin=stdin)


async def run(*argv: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end."""
    process = await asyncio.create_subprocess_exec(*argv, stdin=-1, stdout=-1, stderr=-1, env=env)
    out, err = await process.communicate(stdin)
    return subprocess.CompletedProcess(argv, process.returncode or 0, out, err)


@contextlib.asynccontextmanager
async def proxied(
    folder: Path, *rules: Rule, policy: NetworkPolicy | None = None, authorization: str | None = SECRET
) -> AsyncIterator[Proxied]:
    """Run an upstream and a worker with one open run at its proxy door; `*.example.com` leads to the upstream."""
    with running_upstream(authorization) as upstream:
        pins = upstream.pins(HOST, "other.example.com", "127.0.0.9")
        pins["plain.example.com"] = f"127.0.0.1:{upstream.http_port}"
        async with running_worker(folder, upstream.ca_pem, pins) as worker:
            await worker.put(a_run(rules=rules or (RULE,), policy=policy))
            host, port = await worker.listen(RUN, "proxy")
            yield Proxied(worker, upstream, f"http://{host}:{port}")
