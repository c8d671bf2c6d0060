from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import aiohttp
import pytest
from moat.routing import relay, server
from moat.routing.table import Route

from core.routing.place import a_place, curl, raw

pytestmark = pytest.mark.timeout(60)


async def test_a_real_curl_reaches_a_port_of_a_run_by_its_name(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        code, out, err = await curl(f"http://web.otter.localhost:{place.port}/a?b=c", "-d", "x=1")

        assert (code, json.loads(out)) == (0, {"path": "/a?b=c", "method": "POST", "bytes": 3}), err
        assert place.seen[0]["host"] == f"web.otter.localhost:{place.port}"
        assert place.seen[0]["x-forwarded-proto"] == "http"


async def test_https_has_a_certificate_of_our_ca_for_exactly_that_name(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        code, out, err = await curl("--cacert", str(place.ca), f"https://web.otter.localhost:{place.port}/")
        assert (code, json.loads(out)["path"]) == (0, "/"), err
        assert place.seen[0]["x-forwarded-proto"] == "https"

        code, _, _ = await curl("--cacert", str(place.ca), f"https://web.nobody.localhost:{place.port}/")
        assert code == 35  # no certificate is made for a name that is not routed
        code, out, _ = await curl("--cacert", str(place.ca), f"https://localhost:{place.port}/", "-o", "/dev/null",
                                  "-w", "%{http_code}")  # fmt: skip
        assert (code, out) == (0, "200")


async def test_over_tls_another_name_than_the_certificate_s_is_refused(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        place.table.put(Route("other", "run_0123456789ab", {"web": place.inside}))
        _, out, _ = await curl(
            "--cacert", str(place.ca), "-H", f"Host: web.other.localhost:{place.port}", "-o", "/dev/null",
            "-w", "%{http_code}", f"https://web.otter.localhost:{place.port}/",
        )  # fmt: skip

        assert out == "421"
        assert place.seen == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 400),
        ("web.otter.localhost.evil.example", 400),
        ("web.otter.localhost:1", 400),
        ("", 400),
        ("web.nobody.localhost", 404),
        ("nothing.otter.localhost", 404),
        ("nobody.localhost", 404),
        ("dead.otter.localhost", 502),
    ],
)
async def test_a_name_that_leads_nowhere_gets_a_page_and_no_run_hears_of_it(
    tmp_path: Path, host: str, status: int
) -> None:
    async with a_place(tmp_path) as place:
        answer = await raw(place.port, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

        assert int(answer.split()[1]) == status
        assert b"localhost" in answer
        assert place.seen == []


async def test_a_page_that_rebinds_its_name_to_this_machine_gets_nothing(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        _, out, _ = await curl(
            "--resolve", f"evil.example:{place.port}:127.0.0.1", "-o", "/dev/null", "-w", "%{http_code}",
            f"http://evil.example:{place.port}/",
        )  # fmt: skip

        assert out == "400"


async def test_the_index_is_html_for_people_and_json_for_programs(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{place.port}/"
        async with session.get(url, headers={"Accept": "text/html,*/*"}) as response:
            assert f"http://web.otter.localhost:{place.port}/" in await response.text()
        async with session.get(url, headers={"Accept": "application/json"}) as response:
            assert list((await response.json())["agents"]) == ["otter"]
        async with session.post(url) as response:
            assert response.status == 405
        host = f"otter.localhost:{place.port}"
        async with session.get(url, headers={"Accept": "application/json", "Host": host}) as response:
            assert sorted((await response.json())["agents"]["otter"]["endpoints"]) == ["dead", "web"]


async def test_a_real_websocket_client_talks_both_ways_in_clear_and_over_tls(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place, aiohttp.ClientSession() as session:
        trust = ssl.create_default_context(cafile=str(place.ca))
        for scheme in ("ws", "wss"):
            headers = {"Host": f"web.otter.localhost:{place.port}"}
            url = f"{scheme}://127.0.0.1:{place.port}/ws"
            async with session.ws_connect(
                url, headers=headers, ssl=trust, server_hostname="web.otter.localhost" if scheme == "wss" else None
            ) as ws:
                for word in ("one", "two"):
                    await ws.send_str(word)
                    assert await ws.receive_str(timeout=20) == f"echo {word}"


async def test_an_event_arrives_while_the_stream_is_still_open(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(f"GET /events HTTP/1.1\r\nHost: web.otter.localhost:{place.port}\r\n\r\n".encode())
        async with asyncio.timeout(30):
            assert b"data: one" in await reader.readuntil(b"one\n\n")
            place.go_on.set()
            assert b"data: two" in await reader.read()
        writer.close()


async def test_one_connection_carries_one_request(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        one = f"POST /one HTTP/1.1\r\nHost: web.otter.localhost:{place.port}\r\nContent-Length: 2\r\n\r\nab"
        two = f"GET /two HTTP/1.1\r\nHost: dead.otter.localhost:{place.port}\r\n\r\n"

        answer = await raw(place.port, (one + two).encode())

        assert answer.count(b"HTTP/1.1 ") == 1
        assert len(place.seen) == 1


async def test_connections_that_say_nothing_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.05)
    monkeypatch.setattr(server, "HEAD_S", 0.05)
    async with a_place(tmp_path) as place:
        assert await raw(place.port, b"") == b""
        assert await raw(place.port, b"GET / HT") == b""
        assert await raw(place.port, b"\x16\x03\x01") == b""
        assert json.loads((await curl(f"http://web.otter.localhost:{place.port}/"))[1])["path"] == "/"


async def test_when_descriptors_run_out_the_accept_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real, failures = loop.sock_accept, [OSError(24, "too many open files")]

    async def failing(sock: object) -> object:
        if failures:
            raise failures.pop()
        return await real(sock)  # type: ignore[arg-type] # handed through

    monkeypatch.setattr(loop, "sock_accept", failing)
    monkeypatch.setattr(server, "PAUSE_S", 0.01)
    async with a_place(tmp_path) as place:
        assert (await curl(f"http://web.otter.localhost:{place.port}/"))[0] == 0
    assert failures == []


async def test_a_run_without_a_door_is_told_as_an_answer(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        place.table.put(Route("gone", "run_ba9876543210", {"web": 1}))

        answer = await raw(place.port, b"GET / HTTP/1.1\r\nHost: web.gone.localhost\r\n\r\n")

        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"no open door" in answer


async def test_an_agent_that_holds_its_connections_takes_none_from_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_AGENT_CONNECTIONS", 1)
    async with a_place(tmp_path) as place:
        place.table.put(Route("other", "run_0123456789ab", {"web": place.inside}))
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(f"GET /events HTTP/1.1\r\nHost: web.otter.localhost:{place.port}\r\n\r\n".encode())
        async with asyncio.timeout(30):
            await reader.readuntil(b"one\n\n")

        answers = [await asked(place.port, agent) for agent in ("otter", "other")]
        place.go_on.set()
        async with asyncio.timeout(30):
            await reader.read()
        writer.close()

        assert [answer.split()[1] for answer in answers] == [b"503", b"200"]
        assert b"otter has 1 connections already" in answers[0]
        assert (await asked(place.port, "otter")).split()[1] == b"200"


async def asked(port: int, agent: str) -> bytes:
    return await raw(port, f"GET / HTTP/1.1\r\nHost: web.{agent}.localhost:{port}\r\n\r\n".encode())


async def test_a_connection_over_which_nothing_moves_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "IDLE_S", 0.2)
    async with a_place(tmp_path) as place:
        answer = await raw(
            place.port, f"GET /events HTTP/1.1\r\nHost: web.otter.localhost:{place.port}\r\n\r\n".encode()
        )

        assert answer.endswith(b"data: one\n\n\r\n")
        assert (await asked(place.port, "otter")).split()[1] == b"200"
