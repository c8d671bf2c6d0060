"""A run at a token endpoint: it renews what the user granted, sees no token, and puts none of its own in the place."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode

import pytest
from moat.api.rules import CaptureToken, Match, ReplaceToken, SetHeader
from moat.proxy.messages import Kept
from support.scripted import Talk, answer, talking

HOST = "api.example.com"
ACCESS, REFRESH = "moat-access-placeholder", "moat-refresh-placeholder"
AT_TOKENS = Match(HOST, ("POST",), ("/oauth/token",))
RULES = (
    SetHeader(Match(HOST), "Authorization", "Bearer s3cr3t-access-one", "example"),
    ReplaceToken(Match(HOST), REFRESH, "s3cr3t-refresh-one", ("body", "query", "header"), grant="example"),
    CaptureToken(AT_TOKENS, "example", {"grant_type": "refresh_token", "refresh_token": REFRESH},
                 {"access_token": ACCESS, "refresh_token": REFRESH}),
)  # fmt: skip
JSON, FORM = "Content-Type: application/json", "Content-Type: application/x-www-form-urlencoded"
RENEWAL = {"grant_type": "refresh_token", "refresh_token": REFRESH}
GIVEN = {"access_token": "s3cr3t-access-two", "refresh_token": "s3cr3t-refresh-two"}


def tokens(head: str, body: bytes) -> Iterator[bytes]:
    del head, body
    yield answer(json.dumps(GIVEN).encode(), JSON)


@asynccontextmanager
async def a_daemon_without_room(talk: Talk) -> AsyncIterator[None]:
    """Answer whatever is captured: it could not be stored."""

    async def refuse() -> None:
        count = 0
        while True:
            with suppress(TimeoutError):
                message = (await talk.worker.captures(count + 1))[count]
                talk.worker.send(Kept(message.id, "no room"))
                count += 1

    async with asyncio.TaskGroup() as group:
        refusing = group.create_task(refuse())
        yield
        refusing.cancel()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (json.dumps({"grant_type": "authorization_code", "code": "theirs"}), JSON),
        (json.dumps({"grant_type": "authorization_code", "code": "theirs", "refresh_token": REFRESH}), JSON),
        (json.dumps({"grant_type": "refresh_token", "refresh_token": "theirs", "state": REFRESH}), JSON),
        (json.dumps(RENEWAL)[:-1] + ', "refresh_token": "theirs"}', JSON),
        (urlencode({"grant_type": "password", "username": "theirs", "password": REFRESH}), FORM),
        (f"grant_type=refresh_token&refresh_token={REFRESH}&refresh_token=theirs", FORM),
        (f"grant_type=refresh_token&refresh_token={REFRESH}", JSON),
        (json.dumps(RENEWAL), "Content-Type: text/plain"),
        (json.dumps({**RENEWAL, "x": "y" * 300_000}), JSON),
    ],
    ids=["a login", "a login with the placeholder", "their own token", "two tokens", "a password", "two in a form",
         "another kind", "no kind", "too long"],
)  # fmt: skip
async def test_no_login_of_the_runs_own_takes_the_place_of_the_grant(body: str, kind: str, tmp_path: Path) -> None:
    async with talking(tmp_path, tokens, *RULES) as talk:
        seen = await talk.curl(
            f"https://{HOST}/oauth/token", "-H", kind, "-H", "Expect:", "--data-binary", "@-", "-w", "%{http_code}",
            stdin=body.encode(),
        )  # fmt: skip
        await talk.worker.settle()

    assert seen[-3:] in (b"403", b"413", b"415")
    assert talk.place.heads == []
    assert talk.worker.captured == []


LOGIN = '{"grant_type": "password", "username": "theirs"}'
RENEWING = json.dumps(RENEWAL)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (RENEWING[:-1] + ', "grant_type": "password"}', (JSON,)),
        (RENEWING[:-1] + ', "gr\\u0061nt_type": "password"}', (JSON,)),
        (RENEWING + LOGIN, (JSON,)),
        (f"[{RENEWING}]", (JSON,)),
        (RENEWING.encode("utf-16"), (JSON,)),
        (RENEWING.encode("utf-32-le"), (JSON,)),
        (RENEWING.encode("utf-16"), (f"{JSON}; charset=utf-16",)),
        (RENEWING[:-1] + ', "x": "+ACIALAAi-grant_type+ACIAOgAi-password"}', (f"{JSON}; charset=utf-7",)),
        (f"grant_type=refresh_token&refresh_token={REFRESH}&grant%5Ftype=password", (FORM,)),
        (f"grant_type=refresh_token&refresh_token={REFRESH};grant_type=password", (FORM,)),
        (f"grant_type=refresh_token&refresh_token={REFRESH}", (f"{FORM}; charset=ibm037",)),
        (f"grant_type=refresh_token&refresh_token={REFRESH}", (FORM, JSON)),
        (gzip.compress(RENEWING.encode()), (JSON, "Content-Encoding: gzip")),
        (RENEWING, (JSON, "Content-Encoding: zstd")),
    ],
    ids=["a field twice", "a field twice, escaped", "two objects", "a list", "UTF-16", "UTF-32", "UTF-16, said so",
         "UTF-7", "a form's field twice, escaped", "a semicolon", "EBCDIC", "two kinds", "gzip", "no zstd"],
)  # fmt: skip
async def test_a_body_that_two_readers_take_differently_never_leaves(
    body: str | bytes, fields: tuple[str, ...], tmp_path: Path
) -> None:
    async with talking(tmp_path, tokens, *RULES) as talk:
        said = [word for line in (*fields, "Expect:") for word in ("-H", line)]
        stdin = body if isinstance(body, bytes) else body.encode()
        seen = await talk.curl(
            f"https://{HOST}/oauth/token", *said, "--data-binary", "@-", "-w", "%{http_code}", stdin=stdin
        )
        await talk.worker.settle()

    assert seen[-3:] in (b"400", b"403", b"415")
    assert talk.place.heads == []
    assert talk.worker.captured == []


async def test_a_mark_of_the_byte_order_changes_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path, tokens, *RULES) as talk, a_daemon_without_room(talk):
        body = RENEWING.encode("utf-8-sig")
        seen = await talk.curl(f"https://{HOST}/oauth/token", "-H", JSON, "--data-binary", "@-", stdin=body)

    assert b"s3cr3t" not in seen
    assert talk.place.bodies == [body.replace(REFRESH.encode(), b"s3cr3t-refresh-one")]


async def test_a_storm_of_renewals_is_one_at_the_service(tmp_path: Path) -> None:
    def slowly(head: str, body: bytes) -> Iterator[bytes | None]:
        yield None
        yield from tokens(head, body)

    async with talking(tmp_path, slowly, *RULES) as talk, asyncio.TaskGroup() as group:
        posted = ("-H", JSON, "-d", RENEWING)
        storm = [f"https://{HOST}/oauth/token#[1-30]", "--parallel", "--parallel-immediate"]
        asking = group.create_task(talk.curl(*storm, *posted))
        talk.place.go_on.set()
        (message,) = await talk.worker.captures(1)
        talk.worker.send(Kept(message.id, ""))
        seen = await asking

    assert len(talk.place.heads) == len(talk.worker.captured) == 1
    assert seen.count(ACCESS.encode()) == 30
    assert b"s3cr3t" not in seen


async def test_a_query_cannot_say_otherwise_than_the_body(tmp_path: Path) -> None:
    async with talking(tmp_path, tokens, *RULES) as talk:
        url = f"https://{HOST}/oauth/token?grant_type=authorization_code&code=theirs"
        seen = await talk.curl(url, "-H", JSON, "-d", json.dumps(RENEWAL), "-w", "%{http_code}")

    assert seen.endswith(b"403")
    assert talk.place.heads == []


@pytest.mark.parametrize(
    "path",
    ["/oauth/token", "/OAUTH/TOKEN", "/oauth/token/", "/oauth//token", "/oauth/%74oken", "/oauth%2Ftoken",
     "/x/../oauth/token", "/oauth/token;a=b", "/oauth/./token", "/elsewhere"],
)  # fmt: skip
async def test_however_the_path_is_spelled_the_run_sees_no_token(path: str, tmp_path: Path) -> None:
    async with talking(tmp_path, tokens, *RULES) as talk, a_daemon_without_room(talk):
        posted = ("-H", JSON, "-d", json.dumps(RENEWAL), "--path-as-is")
        seen = await talk.curl(f"https://{HOST}{path}", *posted)

    assert b"s3cr3t" not in seen
    assert b"moat: " in seen


@pytest.mark.parametrize("method", ["post", "PUT", "PATCH", "GET"])
async def test_another_method_with_the_placeholder_brings_no_token(method: str, tmp_path: Path) -> None:
    async with talking(tmp_path, tokens, *RULES) as talk, a_daemon_without_room(talk):
        posted = ("-X", method, "-H", JSON, "-d", json.dumps(RENEWAL))
        seen = await talk.curl(f"https://{HOST}/oauth/token", *posted)

    assert b"s3cr3t" not in seen


async def test_a_part_of_the_answer_is_not_given_away(tmp_path: Path) -> None:
    part = answer(b'"s3cr3t-access', JSON, "Content-Range: bytes 17-31/99", status="206 Partial Content")
    async with talking(tmp_path, lambda *_: [part], *RULES) as talk:
        posted = ("-H", JSON, "-H", "Range: bytes=17-31", "-d", json.dumps(RENEWAL))
        seen = await talk.curl(f"https://{HOST}/oauth/token", *posted, "-w", "%{http_code}")

    assert seen.endswith(b"502")
    assert b"s3cr3t" not in seen


async def test_what_the_run_posts_to_other_hosts_stays_a_placeholder(tmp_path: Path) -> None:
    async with talking(tmp_path, lambda *_: [answer(b"fine")], *RULES) as talk:
        await talk.curl("https://other.example.com/oauth/token", "-H", JSON, "-d", json.dumps(RENEWAL))

    assert json.loads(talk.place.bodies[0]) == RENEWAL
