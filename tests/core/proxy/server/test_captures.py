from __future__ import annotations

import asyncio
import json

import pytest
from moat.api.http import Headers, ResponseHead
from moat.api.rules import CaptureToken, Match
from moat.proxy.bodies import BodyReader, reader_for
from moat.proxy.holds import Share
from moat.proxy.http1 import Framing, Response
from moat.proxy.messages import Captured, Kept
from moat.proxy.refusal import Refusal
from moat.proxy.server.captures import KNOWN_S, MAX_KNOWN, Captures
from moat.proxy.whole import WholeTask

from core.proxy.server.pairs import until

REFRESH = "moat-refresh"
CAPTURE = CaptureToken(
    Match("api.example.com", (), ("/token",)),
    "g",
    {"refresh_token": REFRESH},
    {"access_token": "moat-access", "refresh_token": REFRESH},
)
TOKENS = {"access_token": "s3cr3t-access", "refresh_token": "s3cr3t-refresh"}
BODY = json.dumps({**TOKENS, "expires_in": 60}).encode()


class Body:
    """A body that is there."""

    def __init__(self, body: bytes = BODY) -> None:
        self.buffer = bytearray(body)

    async def more(self) -> bool:
        return False


def a_task(key: str = "one") -> WholeTask:
    return WholeTask((), CAPTURE, key=key)


async def settled(captures: Captures, task: WholeTask, body: bytes = BODY) -> tuple[Response, BodyReader]:
    framing = Framing("length", len(body))
    response = Response(ResponseHead(200, Headers((("Content-Type", "application/json"),))), framing, {})
    return await captures.settle(task, "run_00000000000a", response, reader_for(framing), Body(body), Share())


async def test_the_answer_waits_for_the_daemons_word() -> None:
    sent: list[Captured] = []
    captures = Captures(sent.append)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(settled(captures, a_task()))
        await until(lambda: bool(sent))
        captures.kept(Kept(sent[0].id + 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        captures.kept(Kept(sent[0].id))

    _, reader = waiting.result()
    assert sent == [Captured(1, "run_00000000000a", "g", TOKENS, 60)]
    assert json.loads(reader.take(bytearray()))["access_token"] == "moat-access"
    captures.kept(Kept(sent[0].id))  # nobody waits any more


async def test_a_problem_or_silence_is_a_503() -> None:
    def complain(message: Captured) -> None:
        asyncio.get_running_loop().call_soon(captures.kept, Kept(message.id, "the keyring is locked"))

    captures = Captures(complain)
    with pytest.raises(Refusal) as refused:
        await settled(captures, a_task())
    with pytest.raises(Refusal) as silent:
        await settled(Captures(keep_s=0.01), a_task())

    assert (refused.value.status, silent.value.status) == (503, 503)
    assert "the keyring is locked" in refused.value.reason
    assert "did not answer" in silent.value.reason


def obedient(clock: list[float]) -> Captures:
    def obey(message: Captured) -> None:
        asyncio.get_running_loop().call_soon(captures.kept, Kept(message.id))

    captures = Captures(obey, clock=lambda: clock[0])
    return captures


async def test_a_spent_token_has_the_same_answer_for_a_while() -> None:
    clock = [0.0]
    captures = obedient(clock)
    async with captures.turn(a_task()) as known:
        assert known is None
        await settled(captures, a_task())
    async with captures.turn(a_task()) as known:
        assert known is not None
        assert json.loads(known.reader().take(bytearray()))["access_token"] == "moat-access"
        assert "s3cr3t" not in repr(known)
    async with captures.turn(a_task("two")) as other:
        assert other is None
    clock[0] = KNOWN_S + 1
    async with captures.turn(a_task()) as forgotten:
        assert forgotten is None


@pytest.mark.parametrize("body", [b'{"error": "slow_down"}', b'{"access_token": "s3cr3t-access"}'])
async def test_an_answer_that_leaves_the_refresh_token_good_is_not_repeated(body: bytes) -> None:
    captures = obedient([0.0])
    await settled(captures, a_task(), body)

    async with captures.turn(a_task()) as known:
        assert known is None


async def test_one_after_the_other_spends_a_token() -> None:
    captures, order = Captures(), []

    async def spend(name: str) -> None:
        async with captures.turn(a_task()):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(spend(name))

    assert order == [f"{name} {does}" for name in "abc" for does in ("begins", "ends")]
    assert captures._turns == {}


async def test_what_is_remembered_is_bounded() -> None:
    captures = obedient([0.0])
    for number in range(MAX_KNOWN + 5):
        await settled(captures, a_task(str(number)))

    assert len(captures._known) == MAX_KNOWN


async def test_work_goes_on_when_whoever_waits_is_cancelled() -> None:
    go_on, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        done.set()

    async with asyncio.TaskGroup() as group:
        captures = Captures(group=group)
        waiting = group.create_task(captures.apart(work()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        go_on.set()
        await done.wait()

    assert waiting.cancelled()


async def test_what_goes_wrong_apart_is_told_to_whoever_waits_and_ends_nothing_else() -> None:
    async def fail() -> None:
        raise Refusal(502, "no")

    async with asyncio.TaskGroup() as group:
        captures = Captures(group=group)
        with pytest.raises(Refusal):
            await captures.apart(fail())


async def test_closing_ends_what_is_under_way() -> None:
    async def for_ever() -> None:
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        captures = Captures(group=group)
        waiting = group.create_task(captures.apart(for_ever()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        captures.close()
        waiting.cancel()


async def test_tokens_that_could_not_be_stored_are_stored_with_the_next_request() -> None:
    problem, sent = ["the keyring is locked"], []

    def answer(message: Captured) -> None:
        sent.append(message)
        asyncio.get_running_loop().call_soon(captures.kept, Kept(message.id, problem[0]))

    captures = Captures(answer)
    for _ in range(2):
        with pytest.raises(Refusal, match="the keyring is locked"):
            async with captures.turn(a_task()):
                await settled(captures, a_task())
    problem[0] = ""
    async with captures.turn(a_task()) as known:
        assert known is not None
        assert json.loads(known.reader().take(bytearray()))["access_token"] == "moat-access"

    assert [dict(message.tokens) for message in sent] == [TOKENS] * 3
    assert len({message.id for message in sent}) == 3
    assert captures._late == {}
