"""A server of the tests' own that stands in for a vendor of agents: TLS on loopback, in a thread, 401 for strangers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from support.upstream import MadeCa, make_test_ca

MCP_HOST = "mcp.example.com"
MCP_TOKEN = "ghp_s3cr3t-of-the-mcp-server"


@dataclass
class Vendor:
    """The running server. hosts: the names it has. log: what it was asked, "POST host/path status", oldest first.

    failures: statuses that the next messages are answered with.
    """

    hosts: tuple[str, ...] = ()
    ca: MadeCa = field(default_factory=make_test_ca)
    port: int = 0
    log: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    called: list[dict[str, Any]] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def settings(self, folder: Path) -> dict[str, object]:
        """Return the `upstream` settings of an installation that takes this for the internet; the CA goes to folder."""
        bundle = folder / "vendor.pem"
        bundle.write_text(self.ca.pem)
        bundle.chmod(0o644)
        return {"ca_bundle": str(bundle), "resolve": dict.fromkeys((*self.hosts, MCP_HOST), f"127.0.0.1:{self.port}")}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer what is no MCP request."""
        raise NotImplementedError

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request and write it down."""
        host = request.host.partition(":")[0]
        response = await (self._mcp(request) if host == MCP_HOST else self.answer(request))
        self.log.append(f"{request.method} {host}{request.path} {response.status}")
        return response

    async def _mcp(self, request: web.Request) -> web.StreamResponse:
        """Serve MCP over streamable HTTP, with one tool that says what nobody else knows."""
        if request.headers.get("Authorization") != f"Bearer {MCP_TOKEN}":
            return web.json_response({"error": "who are you?"}, status=401)
        if request.method != "POST":
            return web.Response(status=405)
        asked = await request.json()
        if "id" not in asked:
            return web.Response(status=202)
        results: Mapping[str, Any] = {
            "initialize": {
                "protocolVersion": (asked.get("params") or {}).get("protocolVersion", "2025-06-18"),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "notes", "version": "1"},
            },
            "tools/list": {
                "tools": [
                    {
                        "name": "lookup",
                        "description": "Look something up.",
                        "inputSchema": {"type": "object", "properties": {}},
                    }
                ]
            },
            "tools/call": {"content": [{"type": "text", "text": "the answer is 4711"}]},
        }
        if asked["method"] == "tools/call":
            self.called.append(asked["params"])
        result = results.get(asked["method"], {})
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result})


@contextlib.contextmanager
def running(vendor: Vendor) -> Iterator[Vendor]:
    """Run a vendor's server in a thread of its own."""
    ready, stopping = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=vendor._loop.run_until_complete, args=(_serve(vendor, ready, stopping),))
    thread.start()
    try:
        if not ready.wait(30):
            raise RuntimeError("the vendor did not start")
        yield vendor
    finally:
        vendor._loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        vendor._loop.close()


async def _serve(vendor: Vendor, ready: threading.Event, stopping: asyncio.Event) -> None:
    application = web.Application(client_max_size=2**26)
    application.router.add_route("*", "/{tail:.*}", vendor.handle)
    # Bodies are left as they arrive, so that it can be seen whether they were coded, and came whole.
    runner = web.AppRunner(
        application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None, auto_decompress=False
    )
    await runner.setup()
    context = vendor.ca.server_context(*vendor.hosts, MCP_HOST)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    vendor.port = runner.addresses[0][1]
    ready.set()
    await stopping.wait()
    await runner.cleanup()


async def events(request: web.Request, *each: dict[str, Any]) -> web.StreamResponse:
    """Answer with server-sent events, each called like its type."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in each:
        await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    await response.write_eof()
    return response
