"""Requests that carry others: rules by method or path do not see into them; a line that is offered keeps them in."""

from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.runs import NetworkPolicy
from moat.net.batch import batch_warnings
from moat.net.rules import parse_rule
from support.scripted import answer, talking

GRAPHQL = "https://api.github.com/graphql"
DELETES = '{"query": "mutation { deleteRepository }"}'


def a_policy(*lines: str) -> NetworkPolicy:
    return NetworkPolicy(rules=tuple(map(parse_rule, lines)))


def offered(policy: NetworkPolicy) -> str:
    """Return the line that the warning about policy offers."""
    (text,) = batch_warnings(policy)
    return text.partition("--rule '")[2].rstrip("'")


@pytest.mark.parametrize(
    "path",
    ["/graphql", "/graphql?x=1", "/%67raphql", "/x/../graphql", "/./graphql", "/graphql;a=b", "/x/%2e%2e/graphql",
     "//graphql", "/x%2f..%2fgraphql"],
)  # fmt: skip
async def test_the_line_that_is_offered_keeps_the_batch_in_however_it_is_spelled(path: str, tmp_path: Path) -> None:
    narrow = "deny DELETE api.github.com"
    policy = a_policy(offered(a_policy(narrow)), narrow)
    async with talking(tmp_path, lambda *_: [answer(b"fine")], policy=policy) as talk:
        url = f"https://api.github.com{path}"
        seen = await talk.curl(url, "--path-as-is", "-d", DELETES, "-w", "%{http_code}")

    assert seen.endswith(b"403")
    assert talk.place.heads == []


async def test_it_is_by_the_line_that_it_is_kept_in(tmp_path: Path) -> None:
    async with talking(tmp_path, lambda *_: [answer(b"fine")], policy=a_policy("deny DELETE api.example.com")) as talk:
        batch = await talk.curl("https://api.example.com/graphql", "-d", DELETES, "-w", "%{http_code}")
        deleted = await talk.curl("https://api.example.com/x", "-X", "DELETE", "-w", "%{http_code}")

    assert (batch[-3:], deleted[-3:]) == (b"200", b"403")
