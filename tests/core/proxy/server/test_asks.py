from __future__ import annotations

import asyncio

import pytest
from moat.api.endpoints import Question, Reply
from moat.proxy.messages import Answered, Ask
from moat.proxy.refusal import Refusal
from moat.proxy.server.asks import MAX_ASKS_OF_A_RUN, Asks

QUESTION = Question("run_1", "words", "GET", "/")


async def test_an_answer_finds_its_question() -> None:
    sent: list[Ask] = []
    asks = Asks(sent.append)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asks.answer("aws", QUESTION)) for _ in range(2)]
        await asyncio.sleep(0)
        for number, ask in enumerate(reversed(sent)):
            asks.take(Answered(ask.id, Reply(200 + number)))

    assert [task.result().status for task in tasks] == [201, 200]
    assert (sent[0].grant, sent[0].question) == ("aws", QUESTION)


async def test_no_answer_is_a_502_and_none_in_time_a_504() -> None:
    sent: list[Ask] = []
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
    sent: list[Ask] = []
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
