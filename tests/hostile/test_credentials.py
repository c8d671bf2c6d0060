"""A credential goes to its own host, over verified TLS, in its own header; and nowhere else."""

from __future__ import annotations

import base64

import pytest
from core.proxy.server.h2_peers import HOST, Peer, h2_client, h2_house, h2_server
from h2 import events
from moat.api.rules import Match, SetHeader

from hostile.conftest import SECRET, Bench
from hostile.fuzz.stage import a_stage
from hostile.fuzz.test_echoes import OK
from hostile.sandbox import statuses
from hostile.test_authority import API, get

BASIC = base64.b64encode(f"x-access-token:{SECRET}".encode())


def test_nothing_is_injected_over_plain_http(bench: Bench) -> None:
    direct = bench.free.exchange(get("api.github.com", "http://api.github.com/user"))
    tunnelled = bench.free.exchange(
        b"CONNECT api.github.com:80 HTTP/1.1\r\nHost: x\r\n\r\n", get("api.github.com", "/user")
    )

    assert (statuses(direct), statuses(tunnelled)[0]) == ([200], 200)
    assert {one.port for one in bench.internet.connections} == {80}
    assert b"s3cr3t" not in bench.internet.bytes_seen
    assert BASIC not in bench.internet.bytes_seen


def test_nothing_is_injected_for_another_port(bench: Bench) -> None:
    bench.free.in_tunnel("api.github.com:8443", get("api.github.com:8443"))

    assert [one.port for one in bench.internet.connections] == [8443]
    assert b"s3cr3t" not in bench.internet.bytes_seen


@pytest.mark.parametrize(
    "place", ["https://evil.test/", "https://api.github.com:8443/", "http://api.github.com/", "//evil.test/"]
)
def test_a_redirect_is_not_followed_and_carries_nothing(bench: Bench, place: str) -> None:
    tunnel = bench.free.in_tunnel(API, get("api.github.com", f"/moved?to={place}"))
    first = len(bench.internet.connections)
    bench.free.in_tunnel("evil.test:443", get("evil.test", "/", "Authorization: Bearer ghp_moatplaceholder"))

    assert (statuses(tunnel.came), first) == ([302], 1)
    assert f"Location: {place}".encode() in tunnel.came
    assert [one.address for one in bench.internet.connections if b"s3cr3t" in one.data] == ["140.82.112.5"]


@pytest.mark.parametrize(
    "own",
    [
        ["Authorization: Bearer mine"],
        ["authorization: token mine", "Authorization: Bearer mine"],
        ["AUTHORIZATION:mine"],
        ["Authorization: Bearer mine", "Connection: authorization"],
        ["Connection: Authorization"],
    ],
    ids=repr,
)
def test_the_clients_own_header_never_leaves(bench: Bench, own: list[str]) -> None:
    tunnel = bench.free.in_tunnel(API, get("api.github.com", "/user", *own))

    assert statuses(tunnel.came) == [200]
    assert b"mine" not in bench.internet.bytes_seen
    assert bench.internet.bytes_seen.lower().count(b"authorization:") == 1
    assert SECRET.encode() in bench.internet.bytes_seen


def test_the_clients_own_header_does_not_leave_in_a_trailer(bench: Bench) -> None:
    body = b"1\r\nx\r\n0\r\nAuthorization: Bearer mine\r\nHost: evil.test\r\nContent-Length: 5\r\nX-Fine: yes\r\n\r\n"

    bench.free.in_tunnel(API, get("api.github.com", "/", "Transfer-Encoding: chunked") + body)

    assert (b"mine" in bench.internet.bytes_seen, b"evil.test" in bench.internet.bytes_seen) == (False, False)


KEY = SetHeader(Match("api.example.com"), "X-Api-Key", "s3cr3t-key", "g")


@pytest.mark.parametrize("name", [b"x-api-key", b"X-API-KEY", b"x_api_key"])
async def test_a_key_in_a_trailer_is_kept_in_whichever_header_the_rule_names(name: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with a_stage(OK, rules=(KEY,)) as stage:
        peer = await stage.client("api.example.com")
        await peer.send(head + b"1\r\nx\r\n0\r\n" + name + b": mine\r\nX-Fine: yes\r\n\r\n")
        await stage.quiet()
        left = b"".join(bytes(one.data) for one in stage.seen)

    assert (b"mine" in left, b"X-Fine: yes" in left, left.count(b"s3cr3t-key")) == (False, True, 1)


@pytest.mark.parametrize("name", ["x-api-key", "x_api_key"])
async def test_nor_does_it_leave_in_one_of_http_2(name: str) -> None:
    def answer(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.StreamEnded):
            peer.send(event.stream_id, (":status", "204"), end=True)

    rule = SetHeader(Match(HOST), "X-Api-Key", "s3cr3t-key", "g")
    async with h2_server(answer) as server, h2_house(server.port, rules=(rule,)) as guest:
        client = await h2_client(guest)
        stream = client.ask("/", method="POST", end=False)
        client.send(stream, data=b"x")
        client.send(stream, (name, "mine"), ("x-fine", "yes"), end=True)
        await client.answered(stream)
        came = server.peers[0].fields(1)

    assert (came.get(name), came["x-fine"]) == (None if name == "x_api_key" else "s3cr3t-key", "yes")


@pytest.mark.parametrize(
    "path",
    ["/login/oauth",
     "/owner/repo/../../info/refs", "/o/r/info/refs/../../../x", "/o%2fr/info/refs", "/o/r/%69nfo/..%2f",
     "/o\\r/info/refs", "/a//info/refs", "/settings/tokens"],
)  # fmt: skip
def test_on_gits_host_only_gits_paths_get_the_credential(bench: Bench, path: str) -> None:
    bench.free.in_tunnel("github.com:443", get("github.com", path))

    assert BASIC not in bench.internet.bytes_seen
    assert b"s3cr3t" not in bench.internet.bytes_seen


def test_git_itself_gets_the_credential(bench: Bench) -> None:
    path = "/owner/repo.git/info/refs?service=git-upload-pack"

    bench.free.in_tunnel("github.com:443", get("github.com", path))

    assert BASIC in bench.internet.bytes_seen


@pytest.mark.parametrize("host", ["wrong.unknown.test", "8.8.8.8"])
def test_a_host_that_cannot_prove_its_name_gets_no_request(bench: Bench, host: str) -> None:
    bench.internet.name("wrong.unknown.test", "93.184.216.50")

    tunnel = bench.free.in_tunnel(f"{host}:443", get(host), server_name=None if host[0].isdigit() else host)

    assert statuses(tunnel.came) == [502]
    assert b"HTTP/1.1" not in bench.internet.bytes_seen


def test_no_error_text_holds_the_secret(bench: Bench) -> None:
    answers = [
        bench.free.in_tunnel(API, get("evil.test")).came,
        bench.free.in_tunnel(API, b"TRACE / HTTP/1.1\r\nHost: api.github.com\r\n\r\n").came,
        bench.free.in_tunnel("github.com:22", get("github.com")).came,
        bench.free.exchange(get("nowhere.invalid", "http://nowhere.invalid/")),
    ]

    assert [answer for answer in answers if b"s3cr3t" in answer or BASIC in answer] == []
