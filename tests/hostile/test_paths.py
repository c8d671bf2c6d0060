"""A path means to a rule what it means to whoever reads it upstream, however often that decodes; else it stays in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from core.proxy.server.house_of import a_house
from moat.api.rules import Match, OnlyPlaceholder
from moat.api.runs import NetworkPolicy, RunContext
from moat.net.rules import parse_rule
from support.proxied import RULE
from support.upstream import make_test_ca
from support.worker import RUN, a_run

HOST = "api.example.com"
CA = make_test_ca()
DENY = NetworkPolicy("permissive", rules=(parse_rule(f"deny * {HOST}/admin/**"),))
SCOPE = NetworkPolicy("strict", rules=(parse_rule(f"allow GET {HOST}/repos/**"),))
SECOND_READINGS = (
    "/%61dmin/x", "/%2561dmin/x", "/%252561dmin/x", "/admin%2fx", "/admin%252fx", "/x/%252e%252e/admin",
    "/x/%2e%2e/admin", "/x/%252e%252e%252fadmin", "/x/..%2fadmin", "/x/../admin", "/./admin", "//admin",
    "/x\\..\\admin", "/x/..%5cadmin", "/x/..%255cadmin", "/x/..;/admin", "/x/..%3b/admin", "/x/..%253b/admin",
    "/admin;a=b/x", "/admin%3ba/x", "/%u0061dmin/x", "/admin%3fx", "/admin%253fx", "/admin%23x", "/%25252561dmin/x",
    "/a%c0%afadmin", "/a%25c0%25af/admin", "/x%00/../admin",
)  # fmt: skip
OUT_OF_SCOPE = (
    "/repos/%252e%252e%252fuser", "/repos/%252e%252e/user", "/repos/%25252e%25252e%25252fuser", "/repos/..%2fuser",
    "/repos/x/../../user", "/repos/..;/user", "/repos/..%3b/user", "/repos//../user", "/repos\\..\\user",
    "/%72epo/x", "/repos/%u002e%u002e/user", "/repo%2573/x", "/repos/x/%2e%2e/%2e%2e/user", "/repos/..%255cuser",
    "/repos/%c0%ae%c0%ae/user",
)  # fmt: skip


class Talk:
    """Requests through a house. seen: the heads that a service behind it got."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                self.seen.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
        writer.close()

    async def ask(self, target: str, *lines: str) -> bytes:
        head = "\r\n".join((f"GET {target} HTTP/1.1", f"Host: {HOST}", *lines, "", ""))
        return await self._guest.ask(self._client, head.encode(), b"\n")

    @contextlib.asynccontextmanager
    async def through(self, context: RunContext) -> AsyncIterator[Talk]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=CA.server_context(HOST))
        pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            async with a_house(context, roots=CA.pem, resolve={HOST: pin}) as self._guest:
                self._client = await self._guest.tls_through(self._guest.listen(RUN, "proxy"), HOST)
                yield self
        finally:
            server.close()


@pytest.mark.parametrize("target", SECOND_READINGS)
async def test_no_way_of_writing_a_path_leads_past_a_rule_that_denies_it(target: str) -> None:
    async with Talk().through(a_run(policy=DENY)) as talk:
        answer = await talk.ask(target)

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert talk.seen == []


@pytest.mark.parametrize("target", OUT_OF_SCOPE)
async def test_no_way_of_writing_a_path_leads_out_of_what_a_rule_allows(target: str) -> None:
    async with Talk().through(a_run(policy=SCOPE)) as talk:
        answer = await talk.ask(target)

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert talk.seen == []


@pytest.mark.parametrize(
    "target", ["/repos/a%20b", "/repos/100%25", "/repos/%2541", "/repos/what%3F", "/repos/%61", "/repos/a?x=/../%252e"]
)
async def test_what_every_reading_allows_leaves_as_it_was_written(target: str) -> None:
    for policy in (SCOPE, DENY):
        async with Talk().through(a_run(policy=policy)) as talk:
            assert (await talk.ask(target)).startswith(b"HTTP/1.1 200 ")
        assert talk.seen[0].startswith(f"GET {target} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("target", [path for path in OUT_OF_SCOPE if path.startswith("/repos")])
async def test_no_credential_for_a_path_is_spent_where_a_server_may_read_another(target: str) -> None:
    rule = replace(RULE, match=Match(HOST, paths=("/repos/**",)))
    async with Talk().through(a_run(rules=(rule,))) as talk:
        await talk.ask("/repos/x")
        await talk.ask(target)

    assert [RULE.value.encode() in head for head in talk.seen] == [True, False]


@pytest.mark.parametrize("target", SECOND_READINGS)
async def test_an_own_key_is_kept_in_where_a_server_may_read_the_path_as_one_that_a_rule_is_for(target: str) -> None:
    rule = OnlyPlaceholder(Match(HOST, paths=("/admin/**",)), "X-Key", "placeholder")
    async with Talk().through(a_run(rules=(rule,))) as talk:
        answer = await talk.ask(target, "X-Key: mine")

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert talk.seen == []
