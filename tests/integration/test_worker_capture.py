"""A real worker in front of a token endpoint: the client inside gets placeholders, the daemon the tokens, and first."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from moat.api.rules import CaptureToken, Match, ReplaceToken, Rule, SetHeader
from moat.proxy.messages import Captured, Drop, Kept
from support.scripted import Script, Talk, answer, talking
from support.worker import RUN, a_run

HOST = "api.example.com"
URL = f"https://{HOST}/oauth/token"
ACCESS, REFRESH = "moat-access-placeholder", "moat-refresh-placeholder"
SPENT, FRESH_ACCESS, FRESH = "s3cr3t-refresh-one", "s3cr3t-access-two", "s3cr3t-refresh-two"
AT_TOKENS = Match(HOST, ("POST",), ("/oauth/token",))
CAPTURE = CaptureToken(
    AT_TOKENS,
    "example",
    {"grant_type": "refresh_token", "refresh_token": REFRESH},
    {"access_token": ACCESS, "refresh_token": REFRESH},
)
JSON = "Content-Type: application/json"
ASKED = json.dumps({"grant_type": "refresh_token", "refresh_token": REFRESH, "client_id": "agent"})
GIVEN = {"access_token": FRESH_ACCESS, "refresh_token": FRESH, "expires_in": 3600, "note": f"spent: {SPENT}"}


def the_rules(refresh: str = SPENT, access: str = "s3cr3t-access-one") -> tuple[Rule, ...]:
    return (
        SetHeader(Match(HOST, (), ("/v1/**",)), "Authorization", f"Bearer {access}", "example"),
        ReplaceToken(AT_TOKENS, REFRESH, refresh, ("body",), grant="example"),
        CAPTURE,
    )


def tokens(head: str, body: bytes) -> Iterator[bytes]:
    del head, body
    yield answer(json.dumps(GIVEN).encode(), JSON, f"X-Echo: {FRESH}")


class Daemon:
    """What the daemon does with what is captured, as a test wants it."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.problem = ""
        self.puts_in_force = True
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.kept: list[Captured] = []

    async def serve(self) -> None:
        while True:
            message = (await self.talk.worker.captures(len(self.kept) + 1))[len(self.kept)]
            await self.may_answer.wait()
            self.kept.append(message)
            if self.puts_in_force and not self.problem:
                rules = the_rules(message.tokens["refresh_token"], message.tokens["access_token"])
                await self.talk.worker.put(a_run(rules=rules))
            self.talk.worker.send(Kept(message.id, self.problem))


@asynccontextmanager
async def a_token_endpoint(tmp_path: Path, script: Script, *rules: Rule) -> AsyncIterator[tuple[Talk, Daemon]]:
    async with talking(tmp_path, script, *(rules or the_rules())) as talk:
        daemon = Daemon(talk)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(daemon.serve())
            yield talk, daemon
            serving.cancel()


def posted(body: str = ASKED, kind: str = JSON) -> tuple[str, ...]:
    return ("-H", kind, "-d", body)


async def test_the_client_gets_placeholders_and_the_daemon_the_tokens(tmp_path: Path) -> None:
    async with a_token_endpoint(tmp_path, tokens) as (talk, daemon):
        seen = await talk.curl(URL, *posted(), "-D", str(tmp_path / "head"))
        later = await talk.curl(f"https://{HOST}/v1/x", "-H", f"Authorization: Bearer {ACCESS}")
        records = await talk.worker.records(2)

    (message,) = daemon.kept
    assert json.loads(talk.place.bodies[0])["refresh_token"] == SPENT
    assert (message.run_id, message.grant, message.expires_in) == (RUN, "example", 3600)
    assert dict(message.tokens) == {"access_token": FRESH_ACCESS, "refresh_token": FRESH}
    told = json.loads(seen)
    assert (told["access_token"], told["refresh_token"], told["expires_in"]) == (ACCESS, REFRESH, 3600)
    assert b"s3cr3t" not in seen + later
    assert "s3cr3t" not in (tmp_path / "head").read_text()
    assert f"Authorization: Bearer {FRESH_ACCESS}" in talk.place.heads[1]
    assert [record.grants for record in records] == [("example",), ("example",)]


async def test_the_client_hears_nothing_before_the_daemon_has_it(tmp_path: Path) -> None:
    async with a_token_endpoint(tmp_path, tokens) as (talk, daemon):
        daemon.may_answer.clear()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(talk.curl(URL, *posted()))
            await talk.worker.captures(1)
            await talk.worker.settle()
            assert not asking.done()
            assert talk.worker.seen == []
            daemon.may_answer.set()

    assert ACCESS.encode() in asking.result()


async def test_where_they_cannot_be_stored_the_client_gets_an_error_and_no_token(tmp_path: Path) -> None:
    async with a_token_endpoint(tmp_path, tokens) as (talk, daemon):
        daemon.problem = "the keyring is locked"
        seen = await talk.curl(URL, *posted(), "-i")
        (record,) = await talk.worker.records(1)

    assert b"HTTP/1.1 503 " in seen
    assert b"the keyring is locked" in seen
    assert b"s3cr3t" not in seen
    assert (record.outcome, record.status) == ("failed", 503)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (json.dumps(GIVEN), ["Content-Type: text/plain"]),
        (json.dumps(GIVEN)[:-1], [JSON]),
        (json.dumps([GIVEN]), [JSON]),
        (json.dumps(GIVEN)[:-1] + ', "access_token": "s3cr3t-hidden"}', [JSON]),
        (json.dumps({**GIVEN, "id_token": "s3cr3t-identity"}), [JSON]),
        (json.dumps({**GIVEN, "account": {"refreshToken": "s3cr3t-nested"}}), [JSON]),
        (json.dumps({**GIVEN, "access_token": ["s3cr3t-list"]}), [JSON]),
        (json.dumps({**GIVEN, "padding": "s3cr3t" * 50_000}), [JSON]),
        (json.dumps(GIVEN), [JSON, "Content-Encoding: dcb"]),
    ],
    ids=["kind", "broken", "list", "twice", "unnamed", "nested", "no text", "too long", "coding"],
)  # fmt: skip
async def test_an_answer_that_is_not_understood_is_a_502_without_it(
    body: str, headers: list[str], tmp_path: Path
) -> None:
    async with a_token_endpoint(tmp_path, lambda *_: [answer(body.encode(), *headers)]) as (talk, daemon):
        seen = await talk.curl(URL, *posted(), "-i")
        await talk.worker.records(1)

    assert b"HTTP/1.1 502 " in seen
    assert b"s3cr3t" not in seen
    assert daemon.kept == []


@pytest.mark.parametrize("how", ["gzip", "chunked", "until the end"])
async def test_tokens_are_found_however_the_answer_comes(how: str, tmp_path: Path) -> None:
    body = json.dumps(GIVEN).encode()

    def script(head: str, asked: bytes) -> Iterator[bytes]:
        del head, asked
        if how == "gzip":
            yield answer(gzip.compress(body), JSON, "Content-Encoding: gzip")
        elif how == "chunked":
            yield f"HTTP/1.1 200 OK\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            for at in range(0, len(body), 7):
                piece = body[at : at + 7]
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
            yield b"0\r\n\r\n"
        else:
            yield f"HTTP/1.1 200 OK\r\n{JSON}\r\n\r\n".encode() + body
            yield b""

    async with a_token_endpoint(tmp_path, script) as (talk, daemon):
        seen = await talk.curl(URL, *posted())

    assert json.loads(seen)["access_token"] == ACCESS
    assert b"s3cr3t" not in seen
    assert len(daemon.kept) == 1


async def test_an_error_of_the_service_is_passed_on(tmp_path: Path) -> None:
    answers = iter([
        answer(b'{"error": "invalid_grant"}', JSON, status="400 Bad Request"),
        answer(b"<h1>later</h1>", "Content-Type: text/html", status="503 Service Unavailable"),
    ])  # fmt: skip
    async with a_token_endpoint(tmp_path, lambda *_: [next(answers)]) as (talk, daemon):
        refused = await talk.curl(URL, *posted(), "-w", "%{http_code}")
        page = await talk.curl(URL, *posted(), "-w", "%{http_code}")

    assert (refused, page) == (b'{"error": "invalid_grant"}400', b"<h1>later</h1>503")
    assert daemon.kept == []


async def test_a_refresh_token_that_is_spent_twice_goes_upstream_once(tmp_path: Path) -> None:
    def slowly(head: str, body: bytes) -> Iterator[bytes | None]:
        yield None
        yield from tokens(head, body)

    async with a_token_endpoint(tmp_path, slowly) as (talk, daemon):
        daemon.puts_in_force = False  # so that the fifth still spends what the first has spent, however late it comes
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(talk.curl(URL, *posted())) for _ in range(5)]
            talk.place.go_on.set()
        seen = [each.result() for each in asking]

    assert len(talk.place.heads) == 1
    assert {json.loads(each)["refresh_token"] for each in seen} == {REFRESH}
    assert len(daemon.kept) == 1


async def test_a_client_that_goes_away_does_not_lose_the_tokens(tmp_path: Path) -> None:
    def slowly(head: str, body: bytes) -> Iterator[bytes | None]:
        yield None
        yield from tokens(head, body)

    async with a_token_endpoint(tmp_path, slowly) as (talk, _):
        argv = ["curl", "-sS", "--cacert", str(talk.worker.ca_file), "-x", talk.proxy, URL, *posted()]
        process = await asyncio.create_subprocess_exec(*argv)
        async with asyncio.timeout(30):
            while not talk.place.bodies:  # noqa: ASYNC110 # another process's doing
                await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        await talk.worker.records(1)
        talk.place.go_on.set()
        (message,) = await talk.worker.captures(1)

    assert message.tokens["refresh_token"] == FRESH


async def test_a_run_that_ends_does_not_lose_the_tokens(tmp_path: Path) -> None:
    def slowly(head: str, body: bytes) -> Iterator[bytes | None]:
        yield None
        yield from tokens(head, body)

    async with a_token_endpoint(tmp_path, slowly) as (talk, _):
        async with asyncio.TaskGroup() as group:
            group.create_task(talk.curl(URL, *posted()))
            async with asyncio.timeout(30):
                while not talk.place.bodies:  # noqa: ASYNC110 # another process's doing
                    await asyncio.sleep(0.01)
            talk.worker.send(Drop(RUN))
            await talk.worker.settle()
        talk.place.go_on.set()
        (message,) = await talk.worker.captures(1)

    assert message.tokens["refresh_token"] == FRESH


async def test_what_could_not_be_stored_is_not_lost(tmp_path: Path) -> None:
    async with a_token_endpoint(tmp_path, tokens) as (talk, daemon):
        daemon.problem = "the keyring is locked"
        before = await talk.curl(URL, *posted())
        daemon.problem = ""
        after = await talk.curl(URL, *posted())

    assert b"the keyring is locked" in before
    assert json.loads(after)["refresh_token"] == REFRESH
    assert len(talk.place.heads) == 1
    assert [message.tokens["refresh_token"] for message in daemon.kept] == [FRESH, FRESH]
