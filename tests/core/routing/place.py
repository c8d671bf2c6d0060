"""A routing server in the test's own loop, and a program "in a run" that speaks HTTP, events and websockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import WSMsgType, web
from moat.proxy.ca import make
from moat.proxy.server.leaves import Leaves
from moat.routing.server import Routing
from moat.routing.table import Route, Table

RUN = "run_0123456789ab"


@dataclass
class Place:
    """Where things are. port: of the routing server. inside: of the program. seen: heads that the program got."""

    port: int
    inside: int
    table: Table
    ca: Path
    seen: list[dict[str, str]] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def a_place(tmp_path: Path) -> AsyncIterator[Place]:
    """The agent `otter` with `web` (the program), and `dead`, where nothing listens."""
    authority = make(datetime.now(UTC))
    (tmp_path / "ca.pem").write_text(authority.certificate_pem)
    table = Table(tmp_path / "daemon" / "routes.json")
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as unused:
        dead = unused.getsockname()[1]
        unused.close()
        place = Place(listener.getsockname()[1], 0, table, tmp_path / "ca.pem")
        async with a_program(place) as place.inside:
            table.put(Route("otter", RUN, {"web": place.inside, "dead": dead}))
            routing = Routing(table, place.port, connect, Leaves(authority).context)
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(routing.serve([listener]))
                try:
                    yield place
                finally:
                    serving.cancel()


async def connect(run_id: str, port: int) -> socket.socket:
    """Stand in for the run's door."""
    if run_id != RUN:
        raise ConnectionError("the run has no open door")
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return sock


@asynccontextmanager
async def a_program(place: Place) -> AsyncIterator[int]:
    async def anything(request: web.Request) -> web.Response:
        place.seen.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.read()
        return web.json_response({"path": request.path_qs, "method": request.method, "bytes": len(body)})

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await place.go_on.wait()
        await response.write(b"data: two\n\n")
        return response

    async def sockets(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(f"echo {message.data}")
        return ws

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_get("/events", events)
    app.router.add_get("/ws", sockets)
    app.router.add_route("*", "/{rest:.*}", anything)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        yield int(runner.addresses[0][1])
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()


async def raw(port: int, data: bytes) -> bytes:
    """Return everything that is answered to data."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


async def curl(*arguments: str) -> tuple[int, str, str]:
    """Run the real curl; return its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-m", "20", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()
