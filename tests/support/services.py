"""GitHub as the end-to-end tests see it: TLS on loopback, 401 without a real credential, and every request remembered.

    api.github.com   /client/…      {"ok": true}, for clients that only fetch      /simple/ /files/   a Python index
                     /blob?n=…      n bytes that look random                       /npm/              an npm registry
                     /upload        what came, as size and digest                  /cargo/            a crate registry
                     /sse           one event, waits for go_on(), a second one     /v2/                an image registry
                                                                                   /debian/            an apt repository
    github.com       git's own http-backend over the folder `projects`

The names are real ones because the GitHub provider spends its token there; `upstream.resolve` leads them here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from support import git_server, registries
from support.image_registry import ImageRegistry
from support.upstream import MadeCa, Seen, make_test_ca

HOSTS = ("api.github.com", "uploads.github.com", "github.com", "open.example.com", "other.example.org")
NOTHING: Mapping[str, str] = {}
PIECE = hashlib.shake_128(b"moat").digest(1 << 20)


@dataclass
class Services:
    """The running service. secrets: the tokens it knows. seen: every request, oldest first, refused ones too."""

    projects: Path
    secrets: set[str] = field(default_factory=set, repr=False)
    ca: MadeCa = field(default_factory=make_test_ca)
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    images: ImageRegistry = field(default_factory=ImageRegistry)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _second_event: asyncio.Event = field(default_factory=asyncio.Event)

    def settings(self, folder: Path, resolve: Mapping[str, str] = NOTHING) -> dict[str, object]:
        """Return the `upstream` settings of an installation that takes this for the internet; the CA goes to folder.

        resolve: hosts that lead elsewhere.
        """
        bundle = folder / "internet.pem"
        bundle.write_text(self.ca.pem)
        bundle.chmod(0o644)
        return {"ca_bundle": str(bundle), "resolve": dict.fromkeys(HOSTS, f"127.0.0.1:{self.port}") | dict(resolve)}

    def asked(self, path: str) -> list[Seen]:
        """Return the requests whose path begins like this."""
        return [each for each in self.seen if each.path.startswith(path)]

    def go_on(self) -> None:
        """Let /sse send its second event."""
        self._loop.call_soon_threadsafe(self._second_event.set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request; 401 for those without one of the secrets."""
        host = request.host.partition(":")[0]
        headers = tuple(request.headers.items())
        self.seen.append(Seen(request.method, host, request.path_qs, headers, request.content_length or 0))
        if host.endswith("github.com") and not self._knows(host, request.headers.get("Authorization", "")):
            return web.json_response(
                {"error": "who are you?"}, status=401, headers={"WWW-Authenticate": 'Basic realm="GitHub"'}
            )
        if host == "github.com":
            return await git_server.answer(request, self.projects)
        return await self._route(request)

    def _knows(self, host: str, authorization: str) -> bool:
        return authorization in {expected(host, secret) for secret in self.secrets}

    async def _route(self, request: web.Request) -> web.StreamResponse:
        match request.path.split("/")[1]:
            case "blob":
                return await _blob(request, int(request.query["n"]))
            case "upload":
                return await _upload(request)
            case "sse":
                return await self._events(request)
            case "simple" | "files" | "npm" | "cargo" | "debian":
                return registries.answer(request)
            case "v2":
                return await self.images.answer(request)
        if request.headers.get("X-Amz-Target", "").startswith("DynamoDB"):
            return web.json_response({"TableNames": ["listed-by-aws"]})
        return web.json_response({"ok": True, "path": request.path})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await self._second_event.wait()
        self._second_event.clear()
        await response.write(b"data: second\n\n")
        return response


def expected(host: str, secret: str) -> str:
    """Return the Authorization header that GitHub wants: Basic from git, Bearer for the API."""
    if host == "github.com":
        return "Basic " + base64.b64encode(f"x-access-token:{secret}".encode()).decode()
    return f"Bearer {secret}"


def blob_digest(size: int) -> str:
    """Return the SHA-256 of what /blob?n=size answers, in hex."""
    digest = hashlib.sha256()
    for start in range(0, size, len(PIECE)):
        digest.update(PIECE[: size - start])
    return digest.hexdigest()


@contextlib.contextmanager
def running_services(projects: Path) -> Iterator[Services]:
    """Run the services in a thread of their own."""
    services = Services(projects)
    loop = services._loop
    ready, stopping = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(_serve(services, ready, stopping),))
    thread.start()
    try:
        if not ready.wait(30):
            raise RuntimeError("the services did not start")
        yield services
    finally:
        services.go_on()
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        loop.close()


async def _serve(services: Services, ready: threading.Event, stopping: asyncio.Event) -> None:
    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{tail:.*}", services.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=services.ca.server_context(*HOSTS))
    await site.start()
    services.port = runner.addresses[0][1]
    ready.set()
    await stopping.wait()
    await runner.cleanup()


async def _blob(request: web.Request, size: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(size)})
    await response.prepare(request)
    for start in range(0, size, len(PIECE)):
        await response.write(PIECE[: size - start])
    return response


async def _upload(request: web.Request) -> web.StreamResponse:
    size, digest = 0, hashlib.sha256()
    async for piece in request.content.iter_any():
        size += len(piece)
        digest.update(piece)
    is_chunked = request.headers.get("Transfer-Encoding", "") == "chunked"
    return web.Response(text=json.dumps({"bytes": size, "sha256": digest.hexdigest(), "chunked": is_chunked}))
