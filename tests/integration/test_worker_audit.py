"""A real worker asks for its audit: what spends a grant for the first time in a tunnel does not leave before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api.rules import Match, ReplaceToken
from moat.proxy.entering import Spend
from moat.proxy.messages import Drop, Uses
from support.scripted import Talk, answer, bearer, talking
from support.worker import RUN, a_run

URL = "https://api.example.com/x"
FREE = "https://other.example.com/x"
WHERE = "https://api.example.com"


def ok(head: str, body: bytes) -> Iterator[bytes]:
    del head, body
    yield answer(b"ok")


async def asked(talk: Talk, count: int) -> None:
    async with asyncio.timeout(30), talk.worker.changed:
        await talk.worker.changed.wait_for(lambda: len(talk.worker.spent) >= count)


async def test_nothing_leaves_before_the_audit_has_the_first_use_of_the_tunnel(tmp_path: Path) -> None:
    async with talking(tmp_path, ok, bearer()) as talk:
        talk.worker.enters = None
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(talk.curl(URL))
            await asked(talk, 1)
            await talk.worker.settle()
            assert talk.place.heads == []
            assert await talk.curl(FREE) == b"ok"  # nobody else waits
            assert (len(talk.worker.spent), len(talk.place.heads)) == (1, 1)
            talk.worker.answer(talk.worker.asked[0])
        assert asking.result() == b"ok"
        talk.worker.enters = ""
        seen = await talk.curl(URL, URL, URL, URL)  # one connection
        records = await talk.worker.records(6)
        talk.worker.send(Drop(RUN))  # as at the end of a run: what was counted comes before the daemon goes on
        await talk.worker.settle()

    first, second = talk.worker.spent
    assert first == Spend(RUN, ("example",), WHERE, "connect", first.tunnel)
    assert second == Spend(RUN, ("example",), WHERE, "connect", second.tunnel)
    assert first.tunnel != second.tunnel
    assert seen == b"ok" * 4
    counted = [count for uses in talk.worker.uses for _, _, count in uses.counts]
    assert (sum(counts for counts in counted), {uses.run_id for uses in talk.worker.uses}) == (3, {RUN})
    assert sum(record.grants == ("example",) for record in records) == 5  # no use more, and none less


async def test_what_cannot_be_entered_is_refused_with_the_reason_and_does_not_leave(tmp_path: Path) -> None:
    async with talking(tmp_path, ok, bearer()) as talk:
        talk.worker.enters = "the audit cannot be written: no space left on the disk"
        refused = await talk.curl(URL, "-i")
        refused_twice = await talk.curl(URL, URL, "-w", "%{http_code}")  # the connection goes on, and asks again
        free = await talk.curl(FREE)
        talk.worker.enters = ""
        seen = await talk.curl(URL)
        (record, *_) = await talk.worker.records(5)

    assert b"HTTP/1.1 503 " in refused
    assert b"X-Moat-Error: audit" in refused
    assert b"example is not spent before the audit has it: the audit cannot be written: no space left" in refused
    assert refused_twice.count(b"503") == 2
    assert (free, seen) == (b"ok", b"ok")
    assert len(talk.place.heads) == 2
    assert (record.status, record.outcome) == (503, "refused")


async def test_a_client_of_http_2_asks_for_all_its_streams_at_once(tmp_path: Path) -> None:
    async with talking(tmp_path, ok, bearer()) as talk:
        urls = [f"{URL}/{number}" for number in range(8)]
        seen = await talk.curl(
            "--http2-prior-knowledge", "--no-progress-meter", "--parallel", "--parallel-immediate", *urls
        )
        await talk.worker.records(8)
        talk.worker.send(Drop(RUN))
        await talk.worker.settle()

    assert seen == b"ok" * 8
    tunnels = {spend.tunnel for spend in talk.worker.spent}
    assert len(tunnels) == len(talk.worker.spent)
    assert sum(count for uses in talk.worker.uses for _, _, count in uses.counts) == 8 - len(tunnels)


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
async def test_what_is_spent_in_a_body_is_entered_once_the_body_was_looked_at(tmp_path: Path, version: str) -> None:
    rule = ReplaceToken(Match("api.example.com"), "moat-placeholder", "s3cr3t-in-a-body", ("body",), grant="example")
    posted = ("-H", "Content-Type: application/json", "-d", '{"token": "moat-placeholder"}', "-w", "%{http_code}")
    async with talking(tmp_path, ok, rule) as talk:
        talk.worker.enters = "no space left on the disk"
        refused = await talk.curl(version, URL, *posted)
        talk.worker.enters = ""
        seen = await talk.curl(version, URL, *posted)

    assert (refused[-3:], seen[-5:]) == (b"503", b"ok200")
    assert {spend.grants for spend in talk.worker.spent} == {("example",)}
    assert [b"s3cr3t-in-a-body" in body for body in talk.place.bodies] == [True]


async def test_a_run_without_the_grant_asks_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path, ok, bearer()) as talk:
        await talk.worker.put(a_run())
        assert await talk.curl(URL) == b"ok"
        assert isinstance(talk.worker.uses, list)

    assert talk.worker.spent == []
    assert [uses for uses in talk.worker.uses if isinstance(uses, Uses)] == []
