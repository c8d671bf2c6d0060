from __future__ import annotations

import base64

import pytest
from moat.api.http import Authority
from moat.net.authority import AuthorityRefused
from moat.net.route import Direct, ProxyRoute, proxy_secrets

URL = "http://moat:s3cr3t%20p%40ss@Proxy.Example.com:3128"
BASIC = base64.b64encode(b"moat:s3cr3t p@ss").decode()


def https(host: str, port: int = 443) -> Authority:
    return Authority("https", host, port)


def test_a_url_is_read_with_user_and_password_decoded() -> None:
    route = ProxyRoute.parse(URL)

    assert (route.host, route.port, str(route)) == ("proxy.example.com", 3128, "proxy.example.com:3128")
    assert route.fields == [("Proxy-Authorization", f"Basic {BASIC}")]


def test_without_a_user_there_is_no_field_and_an_ipv6_address_keeps_its_brackets() -> None:
    route = ProxyRoute.parse("http://[2001:db8::1]:3128/")

    assert (str(route), route.fields) == ("[2001:db8::1]:3128", [])


@pytest.mark.parametrize(
    "url",
    ["", "proxy:3128", "https://u:s3cr3t@proxy:3128", "http://u:s3cr3t@proxy", "http://u:s3cr3t@:3128",
     "http://u:s3cr3t@proxy:0", "http://u:s3cr3t@proxy:s3cr3t", "http://u:s3cr3t@proxy:3128/path",
     "http://u:s3cr3t@proxy:3128?q", "http://u:s3cr3t@pro xy:3128", "socks5://u:s3cr3t@proxy:1080"],
)  # fmt: skip
def test_what_is_no_proxy_is_an_error_that_quotes_nothing(url: str) -> None:
    with pytest.raises(AuthorityRefused) as refused:
        ProxyRoute.parse(url)

    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    ("pattern", "authority", "is_direct"),
    [
        ("a.example", https("a.example"), True),
        ("a.example", https("a.example", 8443), True),
        ("A.Example", https("a.example"), True),
        ("a.example", https("b.a.example"), False),
        ("a.example", https("xa.example"), False),
        ("a.example:8443", https("a.example", 8443), True),
        ("a.example:8443", https("a.example"), False),
        ("*.corp", https("git.corp"), True),
        ("*.corp", https("corp"), False),
        ("*.corp:8443", https("git.corp", 8443), True),
        ("*.corp:8443", https("git.corp"), False),
        ("10.0.0.1", https("10.0.0.1"), True),
        ("[2001:db8::1]", https("2001:db8::1"), True),
        ("[2001:db8::1]:8443", https("2001:db8::1"), False),
        ("*", https("a.example", 1), True),
    ],
)
def test_a_pattern_of_no_proxy_covers_what_it_says(pattern: str, authority: Authority, *, is_direct: bool) -> None:
    assert Direct.parse(pattern).matches(authority) is is_direct
    assert ProxyRoute.parse(URL, (pattern,)).is_for(authority) is not is_direct


@pytest.mark.parametrize("pattern", ["", "a*.example", "http://a.example", "a.example:x", "*.*.example", "a b"])
def test_a_pattern_that_could_match_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(AuthorityRefused):
        Direct.parse(pattern)


def test_the_password_is_known_in_every_form_that_a_log_could_hold() -> None:
    assert proxy_secrets(URL) == ["s3cr3t%20p%40ss", "s3cr3t p@ss", BASIC]
    assert proxy_secrets("http://proxy:3128") == []
    assert "s3cr3t" not in repr(ProxyRoute.parse(URL))
    assert BASIC not in repr(ProxyRoute.parse(URL))
