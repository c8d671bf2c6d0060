from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.http import Authority
from moat.net.authority import AuthorityRefused, canonical_host, from_absolute, from_connect, from_host, is_address

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(lambda text: text[2:4] != "--")
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join).map(lambda name: f"{name}.example")


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [
        ("API.GitHub.COM", "api.github.com"),
        ("api.github.com.", "api.github.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("my_bucket.example", "my_bucket.example"),
        ("1.2.3.4", "1.2.3.4"),
        ("[2001:DB8::0:1]", "2001:db8::1"),
        ("::1", "::1"),
    ],
)
def test_every_spelling_of_a_host_becomes_one(spelled: str, canonical: str) -> None:
    assert canonical_host(spelled) == canonical


@pytest.mark.parametrize(
    "host",
    ["", ".", "a..b", ".a.example", "-a.example", "a-.example", "a" * 64 + ".example", "a." * 127 + "aa", "a b", "a\0b",
     "127.1", "0177.0.0.1", "0x7f.0.0.1", "2130706433", "0x7f000001", "1.2.3.4.5", "256.1.1.1", "a.0x1",
     "api。github。com", "xn--a.example", "xn--.example", "a\u200db.example", "\u00adgithub.com", "[fe80::1%25eth0]",
     "fe80::1%eth0", "[1.2.3.4]", "user@host", "host/path", "host?x", "host#x", "host%41", "host\\x", "*.example.com"],
)  # fmt: skip
def test_what_readers_could_take_differently_is_no_host(host: str) -> None:
    with pytest.raises(AuthorityRefused):
        from_host(host, "https")


@given(NAME)
def test_canonical_names_are_fixed_points_whatever_their_case(name: str) -> None:
    assert canonical_host(name.upper() + ".") == name
    assert canonical_host(canonical_host(name)) == canonical_host(name)


@given(st.ip_addresses())
def test_every_address_is_an_address_and_comes_back_as_itself(address: ipaddress.IPv4Address) -> None:
    host = canonical_host(f"[{address}]" if ":" in str(address) else str(address))

    assert is_address(host)
    assert ipaddress.ip_address(host) == address


@given(st.text(max_size=40))
def test_any_text_is_either_refused_or_canonical(text: str) -> None:
    try:
        host = canonical_host(text)
    except AuthorityRefused:
        return

    assert host.isascii()
    assert host == host.lower()
    assert canonical_host(host) == host


def test_connect_needs_a_port_and_port_80_means_http() -> None:
    assert from_connect("api.example.com:443") == Authority("https", "api.example.com", 443)
    assert from_connect("api.example.com:80") == Authority("http", "api.example.com", 80)
    assert from_connect("[::1]:8443") == Authority("https", "::1", 8443)
    with pytest.raises(AuthorityRefused):
        from_connect("api.example.com")


@pytest.mark.parametrize(
    "target",
    ["a.example:0", "a.example:65536", "a.example:+443", "a.example:https", "a.example:443:1", "a.example:", ":443",
     "u@a.example:443", "a.example:443/x", "a.example:443?x", "[::1:443", "[::1]x:443", "a.example :443"],
)  # fmt: skip
def test_connect_targets_with_anything_else_are_refused(target: str) -> None:
    with pytest.raises(AuthorityRefused):
        from_connect(target)


def test_a_host_header_takes_the_schemes_port() -> None:
    assert from_host("Api.Example.com", "https") == Authority("https", "api.example.com", 443)
    assert from_host("api.example.com:8080", "http") == Authority("http", "api.example.com", 8080)


def test_an_absolute_target_splits_into_authority_and_origin_form() -> None:
    assert from_absolute("http://a.example/x?y=1") == (Authority("http", "a.example", 80), "/x?y=1")
    assert from_absolute("HTTPS://a.example:8443") == (Authority("https", "a.example", 8443), "/")
    assert from_absolute("http://a.example?q=/x") == (Authority("http", "a.example", 80), "/?q=/x")


@pytest.mark.parametrize(
    "target",
    ["http://api.github.com@evil.example/", "ftp://a.example/", "//a.example/", "http:///x", "http://a.example/#f"],
)
def test_absolute_targets_that_hide_something_are_refused(target: str) -> None:
    with pytest.raises(AuthorityRefused):
        from_absolute(target)
