"""An upstream whose answers a test writes out byte by byte.

async with scripted(lambda head, body: [b"HTTP/1.1 200 OK\\r\\n…", …]) as place:
    settings: roots = place.ca_pem, resolve = {"api.example.com": place.address}

Each piece is sent by itself; None in between waits for `place.go_on.set()`, an empty piece ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from moat.api.rules import Match, Rule, SetHeader
from moat.api.runs import NetworkPolicy

from support.proxied import SECRET, run
from support.upstream import DEFAULT_HOSTS, make_test_ca
from support.worker import RUN, RunningWorker, a_run, running_worker

Script = Callable[[str, bytes], Iterable[bytes | None]]


@dataclass
class Place:
    """Where the upstream is, and what came: heads and bodies."""

    ca_pem: str
    address: str = ""
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[Place]:
    """Serve script over TLS on loopback. It is given each request's head, and body as framed."""
    ca = make_test_ca()
    place = Place(ca.pem)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                is_chunked = "transfer-encoding: chunked" in head.lower()
                body = await (reader.readuntil(b"0\r\n\r\n") if is_chunked else reader.readexactly(_length(head)))
                place.heads.append(head)
                place.bodies.append(body)
                for piece in script(head, body):
                    if piece is None:
                        await place.go_on.wait()
                    elif not piece:
                        return writer.close()
                    else:
                        writer.write(piece)
                        await writer.drain()
                if "connection: close" in head.lower():
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ca.server_context(*DEFAULT_HOSTS))
    place.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield place


@dataclass
class Talk:
    """A worker in front of a scripted upstream."""

    worker: RunningWorker
    place: Place
    proxy: str

    async def curl(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Return what curl prints."""
        argv = ["curl", "-sS", "--max-time", "30", "--cacert", str(self.worker.ca_file), "-x", self.proxy]
        done = await run(*argv, *arguments, stdin=stdin)
        return done.stdout + done.stderr


@contextlib.asynccontextmanager
async def talking(
    folder: Path, script: Script, *rules: Rule, policy: NetworkPolicy | None = None
) -> AsyncIterator[Talk]:
    """Run a scripted upstream for `*.example.com` and a worker with one open run at its proxy door."""
    async with scripted(script) as place:
        pins = {f"{name}.example.com": place.address for name in ("api", "other", "third")}
        async with running_worker(folder, place.ca_pem, pins) as worker:
            await worker.put(a_run(rules=rules, policy=policy))
            host, port = await worker.listen(RUN, "proxy")
            yield Talk(worker, place, f"http://{host}:{port}")


def bearer(host: str = "api.example.com", token: str = SECRET.removeprefix("Bearer ")) -> SetHeader:
    """Return a rule that spends token at host."""
    return SetHeader(Match(host), "Authorization", f"Bearer {token}", "example")


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a whole response with a length."""
    lines = "".join(f"{line}\r\n" for line in (*headers, f"Content-Length: {len(body)}"))
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def _length(head: str) -> int:
    lines = [line.split(":", 1)[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
    return int(lines[0]) if lines else 0
