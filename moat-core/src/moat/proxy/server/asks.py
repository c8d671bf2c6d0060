"""What the worker asks the daemon while an exchange is held: answers of a provider at its endpoints, and signatures.

    exchange ─▶ answer ─ Ask ─▶ daemon ─▶ provider's respond ─▶ Answered ─▶ take ─▶ the exchange goes on
    exchange ─▶ sign ─ AskSignature ─▶ daemon ─▶ provider's sign ─▶ Signature ─▶ take ─▶ the exchange goes on

Bounded in number and time: a provider that hangs costs its own run's answers, and nobody else's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moat.api.endpoints import Question, Reply
from moat.api.signing import Signed, Unsigned
from moat.proxy.messages import Answered, Ask, AskSignature, Signature
from moat.proxy.refusal import Refusal, late, unreachable

ANSWER_S = 15.0  # the daemon gives up after ten
MAX_ASKS_OF_A_RUN = 16  # each may hold a question's and a reply's bytes
MAX_SIGNATURES_OF_A_RUN = 256  # a head each; an SDK that copies a folder has tens of requests under way


class Asks:
    """The questions under way. send: takes one to the daemon."""

    def __init__(self, send: Callable[[Ask | AskSignature], None], answer_s: float = ANSWER_S) -> None:
        self._send = send
        self._answer_s = answer_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answered | Signature]] = {}
        self._open: Counter[str] = Counter()

    async def answer(self, grant: str, question: Question) -> Reply:
        """Return the provider's answer. Raises Refusal."""
        if self._open[question.run_id] >= MAX_ASKS_OF_A_RUN:
            raise Refusal(503, "too many requests wait for this endpoint's answer", kind="endpoint")
        answered = await self._answered(question.run_id, grant, lambda number: Ask(number, grant, question))
        if not isinstance(answered, Answered) or answered.reply is None:
            raise unreachable(f"the provider of {grant} has no answer; its daemon's log says why", "endpoint")
        return answered.reply

    async def sign(self, grant: str, request: Unsigned) -> Signed:
        """Return a request as its provider has it leave. Raises Refusal."""
        if self._open[request.run_id] >= MAX_SIGNATURES_OF_A_RUN:
            raise Refusal(503, "too many requests wait to be signed", kind="sign")
        answered = await self._answered(request.run_id, grant, lambda number: AskSignature(number, grant, request))
        if isinstance(answered, Signature) and answered.signed is not None:
            return answered.signed
        problem = answered.problem if isinstance(answered, Signature) else ""
        if isinstance(answered, Signature) and problem and answered.status < 500:
            kind, body = answered.content_type, answered.body
            raise Refusal(answered.status, problem, kind="sign", content_type=kind, body=body)
        raise unreachable(problem or f"the provider of {grant} did not sign; its daemon's log says why", "sign")

    async def _answered(
        self, run_id: str, grant: str, made: Callable[[int], Ask | AskSignature]
    ) -> Answered | Signature:
        number = next(self._numbers)
        with self._place(number, run_id) as waiting:
            self._send(made(number))
            try:
                async with asyncio.timeout(self._answer_s):
                    return await waiting
            except TimeoutError:
                raise late(f"the provider of {grant} did not answer in {self._answer_s:g} s") from None

    @contextmanager
    def _place(self, number: int, run_id: str) -> Iterator[asyncio.Future[Answered | Signature]]:
        waiting: asyncio.Future[Answered | Signature] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._open[run_id] += 1
        try:
            yield waiting
        finally:
            del self._waiting[number]
            self._open[run_id] -= 1
            if not self._open[run_id]:
                del self._open[run_id]

    def take(self, answered: Answered | Signature) -> None:
        """Take an answer; one that nobody waits for any more is dropped."""
        waiting = self._waiting.get(answered.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answered)
