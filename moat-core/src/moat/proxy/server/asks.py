"""What the worker asks the daemon while an exchange is held: questions at endpoints that a provider answers.

    exchange ─▶ answer ─ Ask ─▶ daemon ─▶ provider's respond ─▶ Answered ─▶ take ─▶ the exchange goes on

Bounded in number and time: a provider that hangs costs its own run's answers, and nobody else's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable

from moat.api.endpoints import Question, Reply
from moat.proxy.messages import Answered, Ask
from moat.proxy.refusal import Refusal, late, unreachable

ANSWER_S = 15.0  # the daemon gives up after ten
MAX_ASKS_OF_A_RUN = 16  # each may hold a question's and a reply's bytes


class Asks:
    """The questions under way. send: takes an Ask to the daemon."""

    def __init__(self, send: Callable[[Ask], None], answer_s: float = ANSWER_S) -> None:
        self._send = send
        self._answer_s = answer_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply | None]] = {}
        self._open: Counter[str] = Counter()

    async def answer(self, grant: str, question: Question) -> Reply:
        """Return the provider's answer. Raises Refusal."""
        run_id = question.run_id
        if self._open[run_id] >= MAX_ASKS_OF_A_RUN:
            raise Refusal(503, "too many requests wait for this endpoint's answer", kind="endpoint")
        number = next(self._numbers)
        waiting: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._open[run_id] += 1
        self._send(Ask(number, grant, question))
        try:
            async with asyncio.timeout(self._answer_s):
                reply = await waiting
        except TimeoutError:
            raise late(f"the provider of {grant} did not answer in {self._answer_s:g} s") from None
        finally:
            del self._waiting[number]
            self._open[run_id] -= 1
            if not self._open[run_id]:
                del self._open[run_id]
        if reply is None:
            raise unreachable(f"the provider of {grant} has no answer; its daemon's log says why", "endpoint")
        return reply

    def take(self, answered: Answered) -> None:
        """Take an answer; one that nobody waits for any more is dropped."""
        waiting = self._waiting.get(answered.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answered.reply)
