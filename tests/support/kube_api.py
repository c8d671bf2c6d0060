"""A server of the tests' own that stands in for a Kubernetes API server: pods, logs, exec and port-forward, over TLS.

A command that is executed is one of this machine's. Streams come in websockets, or in SPDY/3.1 by `Upgrade`, as
`speaks` says; whoever asks for the other is told 400, upon which kubectl falls back. 401 without the credential.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import struct
import threading
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.upstream import MadeCa, make_test_ca

HOST = "api.github.com"  # where the grant of e2e tests is spent
LOG_LINES = 3
_SPDY = {"SYN_STREAM": 1, "SYN_REPLY": 2, "PING": 6}
_RESOURCES = {
    "name": "pods",
    "singularName": "pod",
    "namespaced": True,
    "kind": "Pod",
    "verbs": ["get", "list"],
    "shortNames": ["po"],
}
_POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "web", "namespace": "default", "uid": "1"},
    "spec": {"containers": [{"name": "main", "image": "none", "ports": [{"containerPort": 80}]}]},
    "status": {"phase": "Running"},
}
_DOCUMENTS: Mapping[str, dict[str, Any]] = {
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.4"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [_RESOURCES]},
    "/api/v1/namespaces/default/pods": {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [_POD]},
    "/api/v1/namespaces/default/pods/web": _POD,
}

Send = Callable[[int, bytes], Awaitable[None]]


@dataclass
class KubeApi:
    """The running server. secret: the bearer token it wants. log: "METHOD path protocol status", oldest first."""

    secret: str = ""
    speaks: str = "websocket"
    ca: MadeCa = field(default_factory=make_test_ca)
    port: int = 0
    log: list[str] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields: dict[str, str] = {}
                for line in filter(None, head[1:]):
                    name, _, value = line.partition(": ")
                    fields[name.lower()] = f"{fields[name.lower()]}, {value}" if name.lower() in fields else value
                method, target, _ = head[0].split(" ")
                await reader.readexactly(int(fields.get("content-length", "0")))
                if await self._answer(reader, writer, method, target, fields):
                    break
        writer.close()

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        method: str,
        target: str,
        fields: Mapping[str, str],
    ) -> bool:
        """Answer a request; return whether the connection is over."""
        path, wanted = urlsplit(target).path, fields.get("upgrade", "").lower()
        document = _DOCUMENTS.get(path)
        if fields.get("authorization") != f"Bearer {self.secret}":
            status, document = 401, {"kind": "Status", "status": "Failure", "code": 401, "reason": "Unauthorized"}
        elif wanted and wanted.startswith(self.speaks):
            self.log.append(f"{method} {path} {wanted} 101")
            await self._streams(reader, writer, target, fields)
            return True
        elif path.endswith("/log"):
            self.log.append(f"{method} {path} http 200")
            return await self._follow(writer)
        elif wanted or document is None:
            status, document = 400 if wanted else 404, {"kind": "Status", "status": "Failure", "code": 404}
        else:
            status = 200
        self.log.append(f"{method} {path} {wanted or 'http'} {status}")
        body = json.dumps(document).encode()
        writer.write(
            f"HTTP/1.1 {status} So\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return False

    async def _follow(self, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(LOG_LINES):
            line = f"line {number}\n".encode()
            writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return False

    async def _streams(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, fields: Mapping[str, str]
    ) -> None:
        asked = parse_qs(urlsplit(target).query)
        is_forward = urlsplit(target).path.endswith("/portforward")
        if self.speaks == "spdy":
            version = "portforward.k8s.io" if is_forward else "v4.channel.k8s.io"
            lines = f"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {version}\r\n"
            writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode())
            wire: _Wire = _Plain(reader, writer)
        else:
            key = fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
            version = "SPDY/3.1+portforward.k8s.io" if is_forward else "v5.channel.k8s.io"
            assert version in fields["sec-websocket-protocol"]
            lines = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n"
            writer.write(
                f"HTTP/1.1 101 Switching Protocols\r\n{lines}Sec-WebSocket-Protocol: {version}\r\n\r\n".encode()
            )
            wire = _Frames(reader, writer)
        if is_forward:
            await _Spdy(wire).forward()
        elif self.speaks == "spdy":
            await _Spdy(wire).execute(asked)
        else:
            assert isinstance(wire, _Frames)
            await _channels(wire, asked)


class _Plain:
    """Bytes as they come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, count: int) -> bytes:
        return await self._reader.readexactly(count)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()


class _Frames(_Plain):
    """The payload of binary websocket messages, as a stream or message by message (RFC 6455 §5.2)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._buffer = bytearray()

    async def message(self) -> bytes | None:
        """Return the next message, which may be empty; None for the end."""
        whole = bytearray()
        while True:
            first, second = await self._reader.readexactly(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8))
            mask = await self._reader.readexactly(4)
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(await self._reader.readexactly(size)))
            if first & 0x0F == 8:
                return None
            if first & 0x0F == 9:
                self._frame(0x8A, payload)
            elif first & 0x0F < 8:
                whole += payload
                if first & 0x80:
                    return bytes(whole)

    async def read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            more = await self.message()
            if more is None:
                raise asyncio.IncompleteReadError(bytes(self._buffer), count)
            self._buffer += more
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def write(self, data: bytes) -> None:
        self._frame(0x82, data)

    def close(self) -> None:
        self._frame(0x88, struct.pack("!H", 1000))

    def _frame(self, first: int, payload: bytes) -> None:
        size = len(payload)
        short = (
            bytes((size,))
            if size < 126
            else b"\x7e" + size.to_bytes(2)
            if size < 65_536
            else b"\x7f" + size.to_bytes(8)
        )
        self._writer.write(bytes((first,)) + short + payload)


_Wire = _Plain


async def _run(asked: Mapping[str, list[str]], stdin: asyncio.Queue[bytes], send: Send) -> None:
    """Run a command; channels as in v5.channel.k8s.io: 1 and 2 for its output, 3 for its end. stdin ends with b""."""
    process = await asyncio.create_subprocess_exec(*asked["command"], stdin=-1, stdout=-1, stderr=-1)
    assert process.stdin is not None

    async def feed() -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            while data := await stdin.get():
                process.stdin.write(data)
                await process.stdin.drain()
            process.stdin.close()

    async def pump(source: asyncio.StreamReader | None, channel: int) -> None:
        assert source is not None
        while data := await source.read(16_384):
            await send(channel, data)

    if "stdin" not in asked:
        process.stdin.close()
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(feed())
        out = [group.create_task(pump(process.stdout, 1)), group.create_task(pump(process.stderr, 2))]
        await asyncio.wait(out)
        code = await process.wait()
        feeding.cancel()
    causes = [{"reason": "ExitCode", "message": str(code)}]
    failed = {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "details": {"causes": causes},
        "message": f"exit {code}",
    }
    await send(3, json.dumps({"metadata": {}, **({"status": "Success"} if code == 0 else failed)}).encode())


async def _channels(wire: _Frames, asked: Mapping[str, list[str]]) -> None:
    """Execute over v5.channel.k8s.io: each message begins with its channel; 255 and a channel close that one."""
    stdin: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen() -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while (message := await wire.message()) is not None:
                if message[:1] == b"\xff":
                    stdin.put_nowait(b"")
                elif message[:1] == b"\x00" and len(message) > 1:
                    stdin.put_nowait(message[1:])

    async def send(channel: int, data: bytes) -> None:
        wire.write(bytes((channel,)) + data)
        await wire.drain()

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        await _run(asked, stdin, send)
        wire.close()
        await asyncio.wait((listening,), timeout=5)
        listening.cancel()


def _feed(stdin: asyncio.Queue[bytes], data: bytes, *, is_last: bool) -> None:
    if data:
        stdin.put_nowait(data)
    if is_last:
        stdin.put_nowait(b"")


class _Spdy:
    """As much of SPDY/3.1 as kubectl speaks. Streams are known by the order in which it opens them, which is fixed."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._deflate = zlib.compressobj()
        self._opened: list[int] = []

    async def execute(self, asked: Mapping[str, list[str]]) -> None:
        """Execute over v4.channel.k8s.io."""
        names = [3, *(channel for channel, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")) if name in asked)]
        stdin: asyncio.Queue[bytes] = asyncio.Queue()
        ready = asyncio.Event()

        async def listen() -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    stream, data, is_last = await self._next()
                    if len(self._opened) == len(names):
                        ready.set()
                    if 0 in names and stream in self._opened[1:2]:
                        _feed(stdin, data, is_last=is_last)

        async def send(channel: int, data: bytes) -> None:
            if channel in names:
                self._data(self._opened[names.index(channel)], data)
                await self._wire.drain()

        async with asyncio.TaskGroup() as group:
            listening = group.create_task(listen())
            await ready.wait()
            await _run(asked, stdin, send)
            for stream in self._opened:
                self._data(stream, b"", is_last=True)
            await self._wire.drain()
            await asyncio.wait((listening,), timeout=5)
            listening.cancel()

    async def forward(self) -> None:
        """Answer each forwarded connection as a web server would: its streams are one for errors, then one for data."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                stream, data, _ = await self._next()
                if data and self._opened.index(stream) % 2:
                    body = b"from the pod"
                    self._data(
                        stream, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body), is_last=True
                    )
                    self._data(self._opened[self._opened.index(stream) - 1], b"", is_last=True)
                    await self._wire.drain()

    async def _next(self) -> tuple[int, bytes, bool]:
        """Return a piece of a stream, and whether it is the last; opens and pings are answered: 0 for them."""
        head = await self._wire.read(8)
        flags, size = head[4], int.from_bytes(head[5:])
        payload = await self._wire.read(size)
        if not head[0] & 0x80:
            return int.from_bytes(head[:4]), payload, bool(flags & 1)
        kind = int.from_bytes(head[2:4])
        if kind == _SPDY["SYN_STREAM"]:
            self._opened.append(int.from_bytes(payload[:4]) & 0x7FFFFFFF)
            block = self._deflate.compress(struct.pack("!I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            self._control(_SPDY["SYN_REPLY"], payload[:4] + block)
        elif kind == _SPDY["PING"]:
            self._control(_SPDY["PING"], payload)
        return 0, b"", False

    def _control(self, kind: int, payload: bytes) -> None:
        self._wire.write(struct.pack("!HHI", 0x8003, kind, len(payload)) + payload)

    def _data(self, stream: int, data: bytes, *, is_last: bool = False) -> None:
        self._wire.write(struct.pack("!II", stream, int(is_last) << 24 | len(data)) + data)


@contextlib.contextmanager
def running_kube(api: KubeApi) -> Iterator[KubeApi]:
    """Run the server in a thread of its own."""
    ready, stopping = threading.Event(), asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(api.serve, "127.0.0.1", 0, ssl=api.ca.server_context(HOST), limit=2**20)
        api.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stopping.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=api._loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        if not ready.wait(30):
            raise RuntimeError("the API server did not start")
        yield api
    finally:
        api._loop.call_soon_threadsafe(stopping.set)
        thread.join(30)
        api._loop.close()
