from __future__ import annotations

import asyncio

import pytest
from moat.api.endpoints import Question, Reply
from moat.api.signing import Signed, Unsigned
from moat.proxy.messages import Answered, Ask, AskSignature, Signature
from moat.proxy.refusal import Refusal
from moat.proxy.server.asks import MAX_ASKS_OF_A_RUN, MAX_SIGNATURES_OF_A_RUN, Asks

QUESTION = Question("run_1", "words", "GET", "/")


async def test_an_answer_finds_its_question() -> None:
    sent: list[Ask | AskSignature] = []
    asks = Asks(sent.append)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asks.answer("aws", QUESTION)) for _ in range(2)]
        await asyncio.sleep(0)
        for number, ask in enumerate(reversed(sent)):
            asks.take(Answered(ask.id, Reply(200 + number)))

    assert [task.result().status for task in tasks] == [201, 200]
    assert sent[0] == Ask(sent[0].id, "aws", QUESTION)


async def test_no_answer_is_a_502_and_none_in_time_a_504() -> None:
    sent: list[Ask | AskSignature] = []
    asks = Asks(sent.append, answer_s=0.01)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(refused(asks))
        await asyncio.sleep(0)
        asks.take(Answered(sent[0].id))

    assert task.result() == (502, "endpoint")
    assert await refused(asks) == (504, "timeout")
    asks.take(Answered(sent[1].id, Reply()))  # too late: nobody waits
    assert not asks._waiting


async def refused(asks: Asks, question: Question = QUESTION) -> tuple[int, str]:
    with pytest.raises(Refusal) as refusal:
        await asks.answer("aws", question)
    return refusal.value.status, refusal.value.kind


async def test_one_runs_questions_are_bounded_and_leave_room_for_anothers() -> None:
    sent: list[Ask | AskSignature] = []
    asks = Asks(sent.append)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asks.answer("aws", QUESTION)) for _ in range(MAX_ASKS_OF_A_RUN)]
        await asyncio.sleep(0)
        assert await refused(asks) == (503, "endpoint")
        other = group.create_task(asks.answer("aws", Question("run_2", "words", "GET", "/")))
        await asyncio.sleep(0)
        asks.take(Answered(sent[-1].id, Reply(201)))
        assert (await other).status == 201
        for task in tasks:
            task.cancel()

    assert not asks._open


REQUEST = Unsigned("run_1", "GET", "s3.example", "/")


async def test_a_signature_finds_its_request_and_their_number_is_bounded() -> None:
    sent: list[Ask | AskSignature] = []
    asks = Asks(sent.append)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asks.sign("aws", REQUEST)) for _ in range(MAX_SIGNATURES_OF_A_RUN)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="wait to be signed"):
            await asks.sign("aws", REQUEST)
        for ask in sent:
            asks.take(Signature(ask.id, Signed(f"/{ask.id}")))

    assert [task.result().target for task in tasks] == [f"/{ask.id}" for ask in sent]
    assert not asks._open


@pytest.mark.parametrize(
    ("answer", "status"),
    [(Signature(1, None, "no", 400), 400), (Signature(1, None, "no"), 502), (Signature(1), 502), (Answered(1), 502)],
)
async def test_no_signature_is_a_refusal(answer: Answered | Signature, status: int) -> None:
    def send(ask: Ask | AskSignature) -> None:
        asyncio.get_running_loop().call_soon(asks.take, answer)

    asks = Asks(send)

    with pytest.raises(Refusal) as refusal:
        await asks.sign("aws", REQUEST)

    assert (refusal.value.status, refusal.value.kind) == (status, "sign")
