"""A server of Node's that speaks only HTTP/2, and curl, which speaks HTTP/1.1: bodies, trailers, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.proxied import HOST, RULE, SECRET, run
from support.upstream import make_test_ca
from support.worker import RUN, RunningWorker, a_run, running_worker

PATIENCE_S = 30.0
SERVER = """
const http2 = require('http2'), fs = require('fs'), crypto = require('crypto')
const say = facts => process.stdout.write(JSON.stringify(facts) + '\\n')
const pem = fs.readFileSync(process.argv[2])
const server = http2.createSecureServer({ key: pem, cert: pem })
server.on('stream', (stream, headers) => {
  say({ asked: headers[':method'] + ' ' + headers[':path'], authorization: headers.authorization || '' })
  stream.on('aborted', () => say({ aborted: headers[':path'] }))
  stream.on('error', () => {})
  if (headers[':path'] === '/hold') return
  if (headers[':path'] === '/hash') {
    const hash = crypto.createHash('sha256')
    stream.on('data', data => hash.update(data))
    stream.on('end', () => { stream.respond({ ':status': 200 }); stream.end(hash.digest('hex')) })
    return
  }
  stream.additionalHeaders({ ':status': 103, link: '</x>' })
  stream.respond({ ':status': 200, 'content-type': 'text/plain' }, { waitForTrailers: true })
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': 'done' }))
  stream.pipe(stream)
})
server.listen(0, '127.0.0.1', () => say({ port: server.address().port }))
process.stdin.on('end', () => process.exit(0)).resume()
"""


@dataclass
class World:
    worker: RunningWorker
    proxy: str
    facts: list[dict[str, Any]] = field(default_factory=list)

    async def curl(self, path: str, *arguments: str) -> bytes:
        return (await run(*self.command(path, *arguments))).stdout

    def command(self, path: str, *arguments: str) -> list[str]:
        argv = ["curl", "-sS", "--http1.1", "--max-time", "30", "-x", self.proxy]
        return [*argv, "--cacert", str(self.worker.ca_file), *arguments, f"https://{HOST}{path}"]

    async def said(self, **fact: object) -> None:
        """Wait until the server said so."""
        async with asyncio.timeout(PATIENCE_S):
            while fact not in self.facts:  # noqa: ASYNC110 - another process says it
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[World]:
    ca = make_test_ca()
    (folder / "server.pem").write_bytes(b"".join(ca.leaf((HOST,), expired=False)))
    (folder / "server.js").write_text(SERVER)
    argv = ["node", str(folder / "server.js"), str(folder / "server.pem")]
    process = await asyncio.create_subprocess_exec(*argv, stdin=-1, stdout=-1)
    assert process.stdin is not None
    assert process.stdout is not None
    port = json.loads(await process.stdout.readline())["port"]
    try:
        async with running_worker(folder, ca.pem, {HOST: f"127.0.0.1:{port}"}) as worker:
            await worker.put(a_run(rules=(RULE,)))
            host, listening = await worker.listen(RUN, "proxy")
            world = World(worker, f"http://{host}:{listening}")
            async with asyncio.TaskGroup() as group:
                following = group.create_task(_follow(process.stdout, world))
                yield world
                following.cancel()
    finally:
        process.stdin.close()
        await process.wait()


async def _follow(lines: asyncio.StreamReader, world: World) -> None:
    while line := await lines.readline():
        world.facts.append(json.loads(line))


async def test_bodies_of_unknown_length_come_back_whole_with_trailers(tmp_path: Path) -> None:
    big = os.urandom(3_000_000)
    await asyncio.to_thread((tmp_path / "big").write_bytes, big)
    async with a_world(tmp_path) as world:
        chunked = ("-H", "Transfer-Encoding: chunked", "-T", str(tmp_path / "big"))
        echoed = await world.curl("/echo", *chunked, "-o", "-")
        raw = await world.curl("/echo", "-d", "words", "-i", "--raw")
        known = await world.curl("/hash", "-T", str(tmp_path / "big"))
        records = await world.worker.records(3)

    assert hashlib.sha256(echoed).digest() == hashlib.sha256(big).digest()
    assert known.decode() == hashlib.sha256(big).hexdigest()
    assert b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n" in raw
    assert raw.endswith(b"\r\n0\r\nx-sum: done\r\n\r\n")
    assert [fact["authorization"] for fact in world.facts if "asked" in fact] == [SECRET] * 3
    assert [(record.status, record.request_bytes) for record in records][:1] == [(200, len(big))]
    assert {record.grants for record in records} == {("example",)}


async def test_a_client_that_gives_up_cancels_the_stream(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        client = await asyncio.create_subprocess_exec(*world.command("/hold"))
        await world.said(asked="GET /hold", authorization=SECRET)
        client.kill()
        await client.wait()
        await world.said(aborted="/hold")
        (record,) = await world.worker.records(1)
        after = await world.curl("/echo", "-d", "still here")

    assert record.reason == "the client went away"
    assert after == b"still here"


@pytest.mark.parametrize("count", [8])
async def test_requests_at_once_share_what_there_is(count: int, tmp_path: Path) -> None:
    async with a_world(tmp_path) as world, asyncio.TaskGroup() as group:
        asking = [group.create_task(world.curl("/echo", "-d", str(number))) for number in range(count)]
        answers = [await task for task in asking]

    assert answers == [str(number).encode() for number in range(count)]
