"""Whose authority is it? Every way to make the name that is judged differ from the name that is asked."""

from __future__ import annotations

import pytest

from hostile.conftest import SECRET, Bench
from hostile.sandbox import statuses

API = "api.github.com:443"


def get(host: str, path: str = "/", *headers: str) -> bytes:
    """Return a request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode("latin-1")


def test_the_bench_works_and_the_credential_is_spent(bench: Bench) -> None:
    tunnel = bench.free.in_tunnel(API, get("api.github.com"))

    assert (statuses(tunnel.connect), statuses(tunnel.came)) == ([200], [200])
    assert SECRET.encode() in bench.internet.bytes_seen
    assert [(one.address, one.server_name) for one in bench.internet.connections] == [
        ("140.82.112.5", "api.github.com")
    ]


@pytest.mark.parametrize(
    "request_",
    [
        get("evil.test"),
        get("api.github.com:8443"),
        get("api.github.com.evil.test"),
        get("www.example.com"),
        get("api.github.com", "https://evil.test/"),
        get("api.github.com", "http://api.github.com/"),
    ],
    ids=["another host", "another port", "a longer name", "an allowed host", "absolute form", "absolute form, http"],
)
def test_a_request_for_another_authority_than_its_tunnels_is_misdirected(bench: Bench, request_: bytes) -> None:
    tunnel = bench.free.in_tunnel(API, request_)

    assert statuses(tunnel.came) == [421]
    assert bench.internet.connections == []


@pytest.mark.parametrize("name", ["evil.test", "www.example.com", "github.com", "xapi.github.com"])
def test_a_handshake_for_another_name_than_the_tunnels_is_closed(bench: Bench, name: str) -> None:
    tunnel = bench.free.in_tunnel(API, get("api.github.com"), server_name=name)

    assert tunnel.tls.startswith("failed")
    assert bench.internet.packets == []


def test_a_name_is_not_bound_to_an_address_of_the_clients_choice(bench: Bench) -> None:
    address = bench.free.ask(do="resolve", name="www.example.com")["address"]

    tunnel = bench.free.in_tunnel("", get("api.github.com"), server_name="api.github.com", to=(address, 443))

    assert address.startswith("127.107.")
    assert tunnel.tls.startswith("failed")
    assert bench.internet.packets == []


def test_behind_an_address_only_its_own_name_answers(bench: Bench) -> None:
    address = bench.free.ask(do="resolve", name="www.example.com")["address"]

    tunnel = bench.free.in_tunnel("", get("api.github.com"), server_name="www.example.com", to=(address, 443))
    plain = bench.free.exchange(get("api.github.com"), to=(address, 80))

    assert statuses(tunnel.came) == statuses(plain) == [421]
    assert bench.internet.packets == []


@pytest.mark.parametrize("address", ["127.107.200.200", "127.0.0.1", "127.1.2.3"])
def test_an_address_that_was_never_given_out_leads_nowhere(bench: Bench, address: str) -> None:
    tunnel = bench.free.in_tunnel("", get("api.github.com"), server_name="api.github.com", to=(address, 443))
    plain = bench.free.exchange(get("www.example.com"), to=(address, 80))

    assert tunnel.tls.startswith("failed")
    assert statuses(plain) == [421]
    assert bench.internet.packets == []


def test_the_target_counts_and_not_the_host_header(bench: Bench) -> None:
    came = bench.free.exchange(b"GET http://66.66.66.66/ HTTP/1.1\r\nHost: api.github.com\r\n\r\n")

    assert statuses(came) == [421]
    assert bench.internet.packets == []


def test_https_in_absolute_form_is_never_downgraded(bench: Bench) -> None:
    came = bench.free.exchange(get("api.github.com", "https://api.github.com/user"))

    assert statuses(came) == [400]
    assert bench.internet.packets == []


def test_absolute_form_meets_the_same_policy_as_connect(bench: Bench) -> None:
    came = bench.strict.exchange(get("evil.test", "http://evil.test/"))

    assert statuses(came) == [403]
    assert (bench.internet.packets, bench.internet.queries) == ([], [])


@pytest.mark.parametrize(
    "hosts",
    [
        ["Host: api.github.com", "Host: evil.test"],
        ["Host: api.github.com", "Host: api.github.com"],
        ["Host:"],
        ["Host: user@api.github.com"],
        ["Host: api.github.com/path"],
        ["Host: api.github.com evil.test"],
        ["Host: api.github.com\tevil.test"],
        ["Host: api.github.com, evil.test"],
        ["Host: api.github.com:443:443"],
        ["Host: api.github.com\x00.evil.test"],
        [],
    ],
    ids=repr,
)
def test_a_host_header_that_is_doubtful_is_malformed(bench: Bench, hosts: list[str]) -> None:
    tunnel = bench.free.in_tunnel(API, "\r\n".join(["GET / HTTP/1.1", *hosts, "", ""]).encode())

    assert statuses(tunnel.came) == [400]
    assert bench.internet.connections == []


@pytest.mark.parametrize(
    "target",
    [
        "http://api.github.com@evil.test/",
        "http://api.github.com:80@evil.test/",
        "http://evil.test\\@www.example.com/",
        "http://www.example.com#@evil.test/",
        "http://www.example.com%2eevil.test/",
        "ftp://www.example.com/",
        "http:///",
        "http://:80/",
        "http://[::1/",
    ],
)
def test_a_target_that_is_read_in_two_ways_is_malformed(bench: Bench, target: str) -> None:
    came = bench.free.exchange(get("www.example.com", target))

    assert statuses(came) == [400]
    assert bench.internet.packets == []


@pytest.mark.parametrize(
    "target",
    [
        "user@api.github.com:443", "api.github.com:443/path", "api.github.com:443?q", "api.github.com:443#f",
        "api.github.com\\@evil.test:443", "api.github.com%00.evil.test:443", "api.github.com", "api.github.com:",
        "api.github.com:0", "api.github.com:65536", "api.github.com:https", "api.github.com:0x1bb",
        "api.github.com: 443",
        "api.github.com:443:443", "https://api.github.com:443", "[fe80::1%25eth0]:443", "[::1:443", "::1:443", ":443",
        "api.github.com\x00:443", "api.github.com\x01:443", "/", "*", "+443",
    ],
    ids=repr,
)  # fmt: skip
def test_a_connect_target_that_is_more_than_host_and_port_is_malformed(bench: Bench, target: str) -> None:
    tunnel = bench.free.in_tunnel(target, get("api.github.com"))

    assert statuses(tunnel.connect) == [400]
    assert (bench.internet.packets, bench.internet.queries) == ([], [])


@pytest.mark.parametrize("port", [22, 25, 80, 853, 6379, 8443])
def test_a_rule_without_a_port_is_for_443_and_80_only(bench: Bench, port: int) -> None:
    tunnel = bench.strict.in_tunnel(f"api.example.com:{port}", get("api.example.com"))

    assert (statuses(tunnel.connect) == [403]) is (port != 80)
    assert bench.internet.connections == []


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-Host: api.github.com", "Forwarded: host=api.github.com", "X-Original-URL: https://api.github.com/",
        "X-Host: api.github.com", "X-HTTP-Host-Override: api.github.com", "Authorization: Bearer ghp_moatplaceholder",
        "Proxy-Authorization: Basic bW9hdDptb2F0", "X-Moat-Grant: github", "Referer: https://api.github.com/",
        "Alt-Used: api.github.com", "Origin: https://api.github.com",
    ],
)  # fmt: skip
def test_no_header_brings_the_credential_to_another_host(bench: Bench, header: str) -> None:
    tunnel = bench.free.in_tunnel("www.example.com:443", get("www.example.com", "/", header))
    bench.free.exchange(get("www.example.com", "http://www.example.com/", header))

    assert statuses(tunnel.came) == [200]
    assert len(bench.internet.connections) == 2
    assert b"s3cr3t" not in bench.internet.bytes_seen
    assert b"proxy-authorization" not in bench.internet.bytes_seen.lower()


@pytest.mark.parametrize("target", ["evil.test:443", "api.github.com:443", "127.0.0.1:22"])
def test_there_is_no_tunnel_in_a_tunnel(bench: Bench, target: str) -> None:
    tunnel = bench.free.in_tunnel(API, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())

    assert statuses(tunnel.came) == [405]
    assert bench.internet.connections == []


def test_the_credential_of_one_run_is_not_spent_for_another(bench: Bench) -> None:
    denied = bench.strict.in_tunnel(API, get("api.github.com"))

    assert statuses(denied.connect) == [403]
    assert bench.internet.packets == []


def test_the_proxy_itself_shows_nothing(bench: Bench) -> None:
    paths = ["/", "/_moat/probe", "/_moat/", "/_aws/credentials", "/mcp/token/x", "/v1/runs", "*", "//evil.test/"]

    answers = {path: statuses(bench.free.exchange(get("127.0.0.1:19080", path))) for path in paths}

    assert answers == {path: [404] for path in paths}
