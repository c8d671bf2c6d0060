"""Ports of a sealed run, reached from outside through the live daemon and the run's gate."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from moat.api.errors import UsageError
from moat.daemon.client import DaemonClient
from moat.daemon.extras import RoutedPort
from moat.daemon.lifecycle import ensure_running, restart
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from moat.routing.table import read_routes
from support import program
from support.living import Sealed, a_sealed_run, ended_after, until
from support.ports import free_port

PROGRAM = Path(program.__file__).read_text()
SERVE = f"python3 -c {shlex.quote(PROGRAM)} 3000; exit 5"

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def home(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    home = Home(private_folder(tmp_path / "home"))
    home.config.write_text(json.dumps({"routing": {"port": port}}))
    with ended_after(home):
        yield home


@asynccontextmanager
async def a_routed_run(home: Home, client: DaemonClient, tmp_path: Path) -> AsyncIterator[Sealed]:
    fields: dict[str, Any] = {"name": "calm-otter", "endpoints": (RoutedPort("web", 3000), RoutedPort("dead", 3001))}
    async with a_sealed_run(home, client, tmp_path, (), script=SERVE, **fields) as sealed:
        async with asyncio.timeout(30):
            assert await sealed.out.readline() == b"ready\n"
        yield sealed


async def curl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-m", "20", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode()


async def test_a_sealed_run_s_port_is_reached_by_name_and_ends_with_the_run(
    home: Home, port: int, tmp_path: Path
) -> None:
    client = ensure_running(home)
    host = f"web.calm-otter.localhost:{port}"
    async with a_routed_run(home, client, tmp_path) as sealed:
        assert await curl(f"http://{host}/page?a=b") == f"/page?a=b for {host}\n"
        ca = home.ca / "ca.pem"
        assert await curl("--cacert", str(ca), f"https://{host}/safe") == f"/safe for {host}\n"
        assert client.health().routing_port == port
        index = json.loads(await curl("-H", "Accept: application/json", f"http://localhost:{port}/"))
        assert index["agents"]["calm-otter"]["run_id"] == sealed.made.run_id
        assert "does not answer at its port 3001" in await curl(f"http://dead.calm-otter.localhost:{port}/")
    client.end(sealed.made.auth_token, 0)

    assert "nothing is routed" in await curl(f"http://{host}/")


async def test_websockets_and_events_go_through_the_gate(home: Home, port: int, tmp_path: Path) -> None:
    client = ensure_running(home)
    host = f"web.calm-otter.localhost:{port}"
    async with a_routed_run(home, client, tmp_path), aiohttp.ClientSession() as session:
        trust = ssl.create_default_context(cafile=str(home.ca / "ca.pem"))
        for scheme, name in (("ws", None), ("wss", "web.calm-otter.localhost")):
            async with session.ws_connect(
                f"{scheme}://127.0.0.1:{port}/ws", headers={"Host": host}, ssl=trust, server_hostname=name
            ) as ws:
                for word in ("one", "two"):
                    await ws.send_str(word)
                    assert await ws.receive_str(timeout=30) == word
        async with session.get(f"http://127.0.0.1:{port}/events", headers={"Host": host}) as response:
            async with asyncio.timeout(30):
                assert await response.content.readline() == b"data: 0\n"


async def test_the_next_daemon_routes_the_same(home: Home, port: int, tmp_path: Path) -> None:
    client = ensure_running(home)
    host = f"web.calm-otter.localhost:{port}"
    async with a_routed_run(home, client, tmp_path):
        published = read_routes(home.daemon / "routes.json")[0].published["web"]
        await asyncio.to_thread(restart, home)
        async with asyncio.timeout(30):
            while (answer := await curl(f"http://{host}/again")) != f"/again for {host}\n":
                assert "no open door" in answer or "curl:" in answer, answer
                await asyncio.sleep(0.2)
            while (answer := await curl(f"http://127.0.0.1:{published}/")) != f"/ for 127.0.0.1:{published}\n":
                assert "no open door" in answer or "curl:" in answer, answer
                await asyncio.sleep(0.2)


async def test_a_taken_port_costs_the_run_that_wants_it_and_is_told(home: Home, port: int) -> None:
    client = ensure_running(home)
    with socket.create_server(("127.0.0.1", port)):
        asked = RegisterRequest(new_run_id(), name="calm-otter", needs_door=False, endpoints=(RoutedPort("web", 1),))
        with pytest.raises(UsageError, match=f"port {port}"):
            await asyncio.to_thread(client.register, asked)
    assert client.runs() == []
    await until(lambda: client.health().run_count == 0)
