"""A real worker process, real clients, a real TLS upstream that answers 401 to whoever has no credential."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from moat.api.rules import Match, SetHeader
from moat.api.runs import NetworkPolicy
from moat.net.rules import parse_rule
from moat.proxy.messages import Drop
from support.proxied import HOST, RULE, SECRET, Proxied, proxied, run
from support.worker import OTHER_RUN, RUN, TOKEN, a_run

STRICT = NetworkPolicy("strict")


async def test_the_upstream_sees_the_credential_that_the_client_does_not_have(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        done = await p.curl(f"https://{HOST}/user?page=2", "-H", "Authorization: Bearer placeholder")

        assert b'"ok": true' in done.stdout
        assert [seen.header("Authorization") for seen in p.upstream.seen] == [SECRET]
        assert p.upstream.seen[0].path == "/user?page=2"


async def test_without_a_rule_the_upstream_answers_401_and_the_answer_is_the_clients(tmp_path: Path) -> None:
    async with proxied(tmp_path, SetHeader(Match("uploads.github.com"), "Authorization", SECRET)) as p:
        done = await p.curl(f"https://{HOST}/", "-w", "%{http_code}")

        assert done.stdout.endswith(b"401")
        assert SECRET.encode() not in done.stdout


async def test_each_exchange_is_recorded_once_without_query_or_secret(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        await p.curl(f"https://{HOST}/echo?token=s3cr3t-in-query", "-d", "hello")
        (record,) = await p.worker.records(1)

    assert (record.run_id, record.via, record.method, record.path) == (RUN, "connect", "POST", "/echo")
    assert (record.scheme, record.host, record.port) == ("https", HOST, 443)
    assert (record.status, record.outcome, record.grants) == (200, "forwarded", ("example",))
    assert (record.request_bytes, record.response_bytes) == (5, 5)
    assert "s3cr3t" not in repr(record)


@pytest.mark.parametrize("client", ["requests", "urllib", "aiohttp"])
async def test_python_clients_work_through_the_proxy(client: str, tmp_path: Path) -> None:
    programs = {
        "requests": "import requests; print(requests.get(url).text)",
        "urllib": "import urllib.request; print(urllib.request.urlopen(url).read().decode())",
        "aiohttp": (
            "import aiohttp, asyncio\n"
            "async def main():\n"
            "    async with aiohttp.ClientSession(trust_env=True) as s, s.get(url) as r: print(await r.text())\n"
            "asyncio.run(main())"
        ),
    }
    async with proxied(tmp_path) as p:
        ca = str(p.worker.ca_file)
        env = {"HTTPS_PROXY": p.proxy, "https_proxy": p.proxy, "SSL_CERT_FILE": ca, "REQUESTS_CA_BUNDLE": ca}
        done = await run(sys.executable, "-c", f"url='https://{HOST}/'\n{programs[client]}", env=env)

    assert b'"ok": true' in done.stdout, done.stderr


async def test_events_arrive_before_the_answer_ends(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        process = await _curl(p, "/sse")
        assert process.stdout is not None
        first = await process.stdout.readline()
        p.upstream.go_on()
        rest = await process.stdout.read()
        await process.wait()

    assert first == b"data: first\n"
    assert rest == b"\ndata: second\n\n"


async def test_a_client_that_goes_away_cancels_the_upstream(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        process = await _curl(p, "/sse")
        assert process.stdout is not None
        await process.stdout.readline()
        process.kill()
        await process.wait()
        (record,) = await p.worker.records(1)

        assert await asyncio.to_thread(p.upstream.closed_early.wait, 30)
    assert record.reason == "the client went away"


async def test_a_hundred_megabytes_pass_in_bounded_memory(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        done = await p.curl(f"https://{HOST}/big?n=100000000", "-o", "/dev/null", "-w", "%{size_download}")
        upload = await p.curl(
            f"https://{HOST}/bytes", "-T", "-", "-X", "POST", "-H", "Expect:", stdin=b"y" * 30_000_000
        )
        status = await asyncio.to_thread(Path(f"/proc/{p.worker.process.pid}/status").read_text)

    assert done.stdout == b"100000000"
    assert upload.stdout == b'{"bytes": 30000000}'
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    assert peak_kib < 150_000


async def test_a_chunked_upload_with_expect_100_continue_arrives_whole(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        body = bytes(range(256)) * 5000
        done = await p.curl(f"https://{HOST}/echo", "-T", "-", "-X", "POST", "-H", "Expect: 100-continue", stdin=body)

    assert done.stdout == body


async def test_a_policy_denial_is_403_and_names_the_line_to_add(tmp_path: Path) -> None:
    async with proxied(tmp_path, policy=STRICT) as p:
        done = await p.curl("https://other.example.com/", "-i")
        allowed = await p.curl(f"https://{HOST}/")
        record, _ = await p.worker.records(2)

    assert b"CONNECT tunnel failed, response 403" in done.stderr
    assert b"X-Moat-Allow: --allow-host other.example.com" in done.stdout
    assert b"X-Moat-Blocked: policy" in done.stdout
    assert (record.status, record.outcome, record.allow_line) == (403, "denied", "--allow-host other.example.com")
    assert b'"ok": true' in allowed.stdout


async def test_a_missing_token_is_407_and_the_connection_is_kept_for_the_second_try(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        host, port = await p.worker.listen("", "token")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n")
        refused = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(_content_length(refused))
        writer.write(b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n")
        writer.write(b"Proxy-Authorization: Basic bW9hdDpzM2NyM3QtcnVuLXRva2Vu\r\n\r\n")
        accepted = await reader.readline()
        writer.close()
        (record, *_) = await p.worker.records(1)

    assert refused.startswith(b"HTTP/1.1 407 ")
    assert b'Proxy-Authenticate: Basic realm="moat"' in refused
    assert b"Connection: close" not in refused
    assert accepted == b"HTTP/1.1 200 Connection established\r\n"
    assert (record.run_id, record.status, record.outcome) == ("", 407, "refused")


async def test_the_token_of_an_ended_run_opens_nothing(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        host, port = await p.worker.listen("", "token")
        proxy = f"http://moat:{TOKEN}@{host}:{port}"
        before = await p.curl(f"https://{HOST}/", proxy=proxy)
        p.worker.send(Drop(RUN))
        await p.worker.settle()
        after = await p.curl(f"https://{HOST}/", proxy=proxy)

    assert b'"ok": true' in before.stdout
    assert b"response 407" in after.stderr


async def test_two_runs_with_different_credentials_are_never_mixed(tmp_path: Path) -> None:
    async with proxied(tmp_path, authorization=None) as p:
        other = SetHeader(Match(HOST), "Authorization", "Bearer s3cr3t-of-the-other", "example")
        await p.worker.put(a_run(OTHER_RUN, (other,), token="s3cr3t-other"))
        host, port = await p.worker.listen(OTHER_RUN, "proxy")
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                proxy = f"http://{host}:{port}" if number % 2 else p.proxy
                name = "b" if number % 2 else "a"
                group.create_task(p.curl(f"https://{HOST}/{name}/1", f"https://{HOST}/{name}/2", proxy=proxy))

        values = {(seen.path[1], seen.header("Authorization")) for seen in p.upstream.seen}
        assert len(p.upstream.seen) == 24
    assert values == {("a", SECRET), ("b", other.value)}


async def test_plain_http_passes_without_any_credential(tmp_path: Path) -> None:
    plain = SetHeader(Match("plain.example.com"), "Authorization", SECRET, "example")
    async with proxied(tmp_path, plain, authorization=None) as p:
        done = await p.curl("http://plain.example.com/")
        tunnelled = await p.curl("-p", "http://plain.example.com/")
        records = await p.worker.records(2)

        assert [seen.header("Authorization") for seen in p.upstream.seen] == [None, None]
    assert b'"ok": true' in done.stdout
    assert b'"ok": true' in tunnelled.stdout
    assert [(record.via, record.scheme, record.grants) for record in records] == [
        ("http", "http", ()),
        ("connect", "http", ()),
    ]


async def test_a_replaced_rule_holds_for_the_next_request_of_an_open_tunnel(tmp_path: Path) -> None:
    async with proxied(tmp_path, RULE, authorization=None) as p:
        process = await _curl(p, "/sse", "/after")
        assert process.stdout is not None
        await process.stdout.readline()
        await p.worker.put(a_run(rules=(RULE,), policy=NetworkPolicy(rules=(parse_rule(f"deny * {HOST}/after"),))))
        p.upstream.go_on()
        await process.communicate()
        (first, second) = await p.worker.records(2)

    assert (first.path, first.outcome) == ("/sse", "forwarded")
    assert (second.path, second.outcome) == ("/after", "denied")


async def _curl(p: Proxied, *paths: str) -> asyncio.subprocess.Process:
    argv = ["curl", "-sSN", "--max-time", "30", "--cacert", str(p.worker.ca_file), "-x", p.proxy]
    return await asyncio.create_subprocess_exec(*argv, *(f"https://{HOST}{path}" for path in paths), stdout=-1)


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split()[0])
