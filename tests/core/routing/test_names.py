from __future__ import annotations

import pytest
from moat.api.errors import UsageError
from moat.routing.names import ForeignHost, checked_label, named, url_of


@pytest.mark.parametrize(
    ("host", "agent", "endpoint"),
    [
        ("web.calm-otter.localhost:8080", "calm-otter", "web"),
        ("WEB.Calm-Otter.LOCALHOST:8080", "calm-otter", "web"),
        ("web.calm-otter.localhost", "calm-otter", "web"),
        ("web.calm-otter.localhost.:8080", "calm-otter", "web"),
        ("calm-otter.localhost:8080", "calm-otter", ""),
        ("localhost:8080", "", ""),
        ("127.0.0.1:8080", "", ""),
        ("[::1]:8080", "", ""),
    ],
)
def test_a_host_names_an_endpoint_an_agent_or_the_index(host: str, agent: str, endpoint: str) -> None:
    found = named(host, 8080)

    assert (found.agent, found.endpoint) == (agent, endpoint)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8080",
        "localhost.evil.example:8080",
        "web.calm-otter.localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.2:8080",
        "0.0.0.0:8080",
        "web.calm-otter.localhost:9090",
        "a.b.c.localhost:8080",
        ".localhost:8080",
        "a..localhost",
        "-a.localhost",
        "a_b.localhost",
        "user@localhost",
        "localhost/",
        "localhost:8080:8080",
        "localhost:",
        "",
        "\u017f.localhost",
    ],
)
def test_a_host_that_is_not_ours_is_foreign_whatever_it_resolves_to(host: str) -> None:
    with pytest.raises(ForeignHost):
        named(host, 8080)


@pytest.mark.parametrize("text", ["", "a.b", "A", "a_b", "-a", "a-", "a" * 64, "a\n", "ä"])
def test_what_cannot_stand_in_an_address_is_no_name(text: str) -> None:
    with pytest.raises(UsageError):
        checked_label(text, "an agent")


def test_an_address_leads_back_to_its_names() -> None:
    host = url_of("calm-otter", "web", 8080).removeprefix("http://").removesuffix("/")

    assert (named(host, 8080).agent, named(host, 8080).endpoint) == ("calm-otter", "web")
