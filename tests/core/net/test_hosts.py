from __future__ import annotations

import pytest
from moat.api.errors import UsageError
from moat.api.http import Authority
from moat.net.hosts import HostPattern, is_this_machine


def https(host: str, port: int = 443) -> Authority:
    return Authority("https", host, port)


@pytest.mark.parametrize(
    ("pattern", "authority"),
    [
        ("api.example.com", https("api.example.com")),
        ("API.Example.com.", https("api.example.com")),
        ("*.github.com", https("api.github.com")),
        ("*.github.com", https("a.b.github.com")),
        ("*.example.com:8443", https("a.example.com", 8443)),
        ("api.example.com", Authority("http", "api.example.com", 80)),
        ("[::1]:8443", https("::1", 8443)),
        ("bücher.example", https("xn--bcher-kva.example")),
        ("*", https("anything.example")),
    ],
)
def test_a_pattern_covers_what_it_says(pattern: str, authority: Authority) -> None:
    assert HostPattern.parse(pattern).matches(authority)


@pytest.mark.parametrize(
    ("pattern", "authority"),
    [
        ("*.github.com", https("github.com")),
        ("*.github.com", https("evilgithub.com")),
        ("*.github.com", https("github.com.evil.com")),
        ("api.example.com", https("xapi.example.com")),
        ("api.example.com", https("api.example.com", 22)),
        ("api.example.com", https("api.example.com", 80)),
        ("api.example.com", Authority("http", "api.example.com", 443)),
        ("api.example.com:443", https("api.example.com", 8443)),
        ("*", https("anything.example", 22)),
    ],
)
def test_a_pattern_covers_nothing_else(pattern: str, authority: Authority) -> None:
    assert not HostPattern.parse(pattern).matches(authority)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*github.com",
        "git*.com",
        "*.com",
        "*.co.uk",
        "*.*.amazonaws.com",
        "a.*.com",
        "*.",
        "**",
        "*.1.2.3.4",
        "10.0.0.0/8",
        "https://a.example",
        "a.example:99999",
        "a.example:abc",
        "*:443",
        "a b",
    ],
)
def test_everything_else_is_an_error_with_what_to_write(pattern: str) -> None:
    with pytest.raises(UsageError) as error:
        HostPattern.parse(pattern)

    assert "*.host" in error.value.hint


@pytest.mark.parametrize(
    ("host", "is_one"),
    [("host.moat.internal", True), ("db.host.moat.internal", True), ("xhost.moat.internal", False),
     ("moat.internal", False), ("host.moat.internal.example", False)],
)  # fmt: skip
def test_names_of_this_machine_are_known(host: str, is_one: bool) -> None:
    assert is_this_machine(host) is is_one
