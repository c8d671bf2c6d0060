from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from moat.api.credentials import Credential
from moat.api.endpoints import Endpoint, Forward, ProxyPath, Question, Reply, Respond, Upstream
from moat.api.errors import GrantFailed, PluginError
from moat.api.http import Headers
from moat.api.rules import Match, Sign
from moat.api.signing import Signed, Unsignable, Unsigned
from moat.api.tokens import TokenProvider
from moat.daemon.answers import Answers, Means
from moat.daemon.extras import AwsConfig, Extras
from moat.daemon.registry import Entry, Registry
from moat.proxy.messages import Answered, Ask, AskSignature, Signature

from core.daemon.making import RUN_ID, SECRET, Vault, a_context, an_info

WORDS = Endpoint(ProxyPath("/_moat/w/"), Respond("words"), "apple")
KUBE = Endpoint(ProxyPath("/_moat/k/"), Forward(Upstream("k.example")), "apple")


class Speaker:
    """Plugins that answer with what they were given. block: never."""

    def __init__(self) -> None:
        self.seen: list[tuple[Question, Credential]] = []
        self.block = asyncio.Event()
        self.failure: Exception | None = None
        self.secrets: tuple[str, ...] = ()

    async def respond(self, question: Question, credential: Credential) -> Reply:
        self.seen.append((question, credential))
        if self.failure is not None:
            raise self.failure
        if question.target == "/slow":
            await self.block.wait()
        return Reply(body=credential.secret.encode(), secrets=self.secrets)


class Signer(TokenProvider):
    """A provider that signs with what it has; some targets it does not."""

    name = "apple"

    async def sign(self, request: Unsigned, credential: Credential) -> Signed:
        if request.target == "/fails":
            raise ValueError(credential.secret)
        if request.target == "/own":
            raise Unsignable("another key", status=403)
        if request.target == "/later":
            raise GrantFailed("no session", hint="try again")
        return Signed(request.target, (("A", credential.secret),), secrets=("s3cr3t-session",))


NONE = Extras()


def a_run_with(*endpoints: Endpoint, is_open: bool = True, extras: Extras = NONE, profile: str = "") -> Entry:
    context = a_context(endpoints=endpoints, is_open=is_open)
    return Entry(context, an_info(profile=profile), extras=extras)


@contextlib.asynccontextmanager
async def answering(
    entry: Entry, limit_s: float = 5.0
) -> AsyncIterator[tuple[Answers, Speaker, asyncio.Queue[Answered | Signature], list[str]]]:
    registry, speaker = Registry(), Speaker()
    registry.publish(entry)
    said: asyncio.Queue[Answered | Signature] = asyncio.Queue()
    learned: list[str] = []
    means = Means(registry, Vault("apple", "aws"), speaker, lambda name: Signer(), learned.append, said.put_nowait)
    answers = Answers(means, limit_s)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(answers.forever())
        yield answers, speaker, said, learned
        task.cancel()


def ask(number: int = 1, *, grant: str = "apple", name: str = "words", run_id: str = RUN_ID, target: str = "/") -> Ask:
    return Ask(number, grant, Question(run_id, name, "GET", target))


async def test_a_question_is_answered_with_the_credential_as_it_is_stored() -> None:
    async with answering(a_run_with(WORDS, profile="work")) as (answers, speaker, said, learned):
        answers.take(ask(7))
        answered = await said.get()

    assert answered == Answered(7, Reply(body=f"{SECRET}-work".encode()))
    assert speaker.seen[0][0] == ask(7).question
    assert learned == [f"{SECRET}-work"]


@pytest.mark.parametrize(
    ("entry", "asked"),
    [
        (a_run_with(WORDS), ask(grant="pear")),
        (a_run_with(WORDS), ask(name="other")),
        (a_run_with(WORDS), ask(run_id="run_000000000bad")),
        (a_run_with(KUBE), ask(name="")),
        (a_run_with(WORDS, is_open=False), ask()),
    ],
    ids=["another grant", "another name", "another run", "one that forwards", "closed"],
)
async def test_a_worker_is_not_taken_at_its_word(entry: Entry, asked: Ask) -> None:
    async with answering(entry) as (answers, speaker, said, _):
        answers.take(asked)

        assert await said.get() == Answered(1)
    assert speaker.seen == []


async def test_a_grant_that_was_removed_answers_nothing() -> None:
    gone = replace(WORDS, grant="pear")
    async with answering(a_run_with(gone)) as (answers, speaker, said, _):
        answers.take(ask(grant="pear"))

        assert await said.get() == Answered(1)
    assert speaker.seen == []


@pytest.mark.parametrize("failure", [PluginError("no"), RuntimeError("a bug")], ids=["said", "unexpected"])
async def test_a_provider_that_fails_costs_its_own_question(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with answering(a_run_with(WORDS)) as (answers, speaker, said, _):
        speaker.failure = failure
        with caplog.at_level(logging.WARNING):
            answers.take(ask(1))
            assert await said.get() == Answered(1)
        speaker.failure = None
        answers.take(ask(2))
        answered = await said.get()

    assert isinstance(answered, Answered)
    assert answered.reply is not None
    assert caplog.records


async def test_a_slow_provider_holds_nobody_up_and_is_given_up() -> None:
    async with answering(a_run_with(WORDS), limit_s=0.2) as (answers, _, said, _):
        answers.take(ask(1, target="/slow"))
        answers.take(ask(2))

        assert (await said.get()).id == 2
        assert await said.get() == Answered(1)


async def test_a_role_of_the_registrations_own_is_its_credential() -> None:
    extras = Extras(aws_config=AwsConfig("arn:aws:iam::1:role/s3cr3t"))
    async with answering(a_run_with(replace(WORDS, grant="aws"), extras=extras)) as (answers, speaker, said, _):
        answers.take(ask(grant="aws"))
        await said.get()

    assert speaker.seen[0][1].secret == "arn:aws:iam::1:role/s3cr3t"


async def test_the_log_learns_what_an_answer_names_as_secret_before_it_leaves() -> None:
    async with answering(a_run_with(WORDS)) as (answers, speaker, said, learned):
        speaker.secrets = ("s3cr3t-made-for-the-run",)
        answers.take(ask())
        await said.get()

    assert learned == [SECRET, "s3cr3t-made-for-the-run"]


def a_signing_run(*, is_open: bool = True) -> Entry:
    rules = (Sign(Match("*.aws.example"), "apple"), Sign(Match("aws.example"), "apple"))
    return Entry(a_context(rules=rules, is_open=is_open), an_info())


def to_sign(target: str = "/", *, grant: str = "apple", host: str = "s3.aws.example") -> AskSignature:
    return AskSignature(7, grant, Unsigned(RUN_ID, "GET", host, target, Headers()))


@pytest.mark.parametrize("host", ["s3.aws.example", "aws.example"])
async def test_a_request_is_signed_with_the_credential_as_it_is_stored(host: str) -> None:
    async with answering(a_signing_run()) as (answers, _, said, learned):
        answers.take(to_sign("/x", host=host))
        answered = await said.get()

    assert answered == Signature(7, Signed("/x", (("A", SECRET),), secrets=("s3cr3t-session",)))
    assert learned == [SECRET, "s3cr3t-session"]


@pytest.mark.parametrize(
    "asked",
    [to_sign(grant="aws"), to_sign(host="s3.aws.example.evil"), to_sign(host="s3.aws.example:8443"), to_sign("/fails")],
)
async def test_what_no_rule_wants_signed_is_not(asked: AskSignature, caplog: pytest.LogCaptureFixture) -> None:
    async with answering(a_signing_run()) as (answers, _, said, _):
        answers.take(asked)
        assert await said.get() == Signature(7)


async def test_nothing_is_signed_for_a_closed_run() -> None:
    async with answering(a_signing_run(is_open=False)) as (answers, _, said, _):
        answers.take(to_sign())
        assert await said.get() == Signature(7)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("/own", Signature(7, None, "another key", 403)),
        ("/later", Signature(7, None, "no session; on the host: try again")),
    ],
)
async def test_the_run_is_told_why_a_request_is_not_signed(target: str, told: Signature) -> None:
    async with answering(a_signing_run()) as (answers, _, said, _):
        answers.take(to_sign(target))
        assert await said.get() == told
