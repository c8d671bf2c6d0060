from __future__ import annotations

import math
import socket
from dataclasses import replace

import pytest
from moat.api.endpoints import Question, Reply
from moat.api.http import Headers
from moat.api.runs import ExchangeRecord, NetworkPolicy, RunContext
from moat.api.signing import Signed, Unsigned
from moat.frames import FrameChannel
from moat.proxy.counts import Counts
from moat.proxy.entering import Entered, Spend, Spends
from moat.proxy.forwarded import Forwarded, count_all, lines_of, packed
from moat.proxy.guessed import Guess, Guessed
from moat.proxy.messages import (
    Answered,
    Ask,
    AskSignature,
    Captured,
    Configure,
    Drop,
    Exchanges,
    Kept,
    Listen,
    MessageError,
    Named,
    Ping,
    Pong,
    Ready,
    SetRun,
    Signature,
    Stop,
    ToDaemon,
    ToWorker,
    Uses,
    Wire,
    decode,
    encode,
)
from moat.proxy.record import line_of, line_with

RECORD = ExchangeRecord("run_1", "2026-01-01T00:00:00Z", "connect", "GET", "https", "a.example", 443, "/", 200,
                        "forwarded", grants=("github",))  # fmt: skip
COUNTS = Counts()
COUNTS.record(RECORD)
COUNTS.record(
    replace(RECORD, outcome="denied", status=403, duration_ms=6.0, request_bytes=1, response_bytes=2, scrubbed=3)
)
EXCHANGES = Exchanges("run_1", COUNTS, f"{line_of(RECORD)}\n{line_of(RECORD)}\n".encode())
FORWARDED = Forwarded("run_1", line_with('{"a":1', 200, 5, 7, 1), 7, 2 * packed(1.0, 6.0, 3.0))
MESSAGES: list[ToWorker | ToDaemon] = [
    Configure(
        "cert",
        "s3cr3t-key",
        "roots",
        {"a.example": "127.0.0.1:1"},
        ("10.0.0.0/8",),
        "http://u:s3cr3t@p:1",
        ("*.corp",),
        1.5,
        2.5,
    ),
    SetRun(RunContext("run_1", "ab", NetworkPolicy("strict", ("a.example",))), {"a.example": "127.107.0.1"}),
    Listen("run_1", "dns-udp"),
    Listen("run_1", "tcp:5432"),
    Listen("run_1", "unix:/run/a/b.sock"),
    Drop("run_1"),
    Kept(7),
    Kept(8, "the keyring is locked"),
    Entered(7),
    Entered(8, ("", "no space left on the disk")),
    Spends(7, (Spend("run_1", ("github", "aws"), "https://a.example", "connect", 3), Spend("r", (), "a", "v", 4))),
    Uses("run_1", (("github", "https://a.example", 2), ("aws", "https://b.example", 1))),
    Guessed((Guess("127.0.0.1", "", 3, 1, "2026-01-01", "2026-01-02"), Guess("", "run_1", 0, 1, "a", "b")), 7),
    Captured(7, "run_1", "github", {"access_token": "s3cr3t"}, 3600),
    Answered(7, Reply(403, (("A", "b"),), b"s3cr3t \xff")),
    Answered(8),
    Ping(7),
    Stop(),
    Ready(),
    EXCHANGES,
    Named("run_1", "a.example", "127.107.0.1"),
    Ask(7, "aws", Question("run_1", "keys", "PUT", "/x?y", Headers((("A", "b"), ("A", "c"))), b"s3cr3t\0")),
    AskSignature(7, "aws", Unsigned("run_1", "PUT", "a.example", "/x?y", Headers((("A", "b"),)), "ab")),
    Signature(7, Signed("/x?y", (("A", "s3cr3t"),), ("date",), ("s3cr3t",))),
    Signature(8, None, "no session", 403, "application/xml", "<Error/>"),
    Pong(7),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
async def test_every_message_survives_the_wire(message: ToWorker | ToDaemon) -> None:
    ours, theirs = socket.socketpair()
    sender, receiver = FrameChannel(ours), FrameChannel(theirs)
    sender.send(encode(message))
    received = await receiver.receive()
    sender.close()
    receiver.close()

    assert received is not None
    assert decode(received[0]) == message


def test_times_are_read_as_exchanges() -> None:
    counts = Counts()
    count_all(counts, [FORWARDED.line] * 2, FORWARDED.times)

    lines = lines_of([FORWARDED.line] * 2, 7, FORWARDED.times)
    assert decode(encode(FORWARDED)) == Exchanges("run_1", counts, lines)


def test_unknown_fields_are_ignored() -> None:
    assert decode({**encode(Pong(7)), "new": 1}) == Pong(7)


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"type": "unheard-of"},
        {"type": "ping", "id": "7"},
        {"type": "drop"},
        {"type": "listen", "run_id": "r", "name": "smtp"},
        {name: value for name, value in encode(EXCHANGES).items() if name != "tail"},
        {**encode(EXCHANGES), "buckets": [1]},
        {**encode(EXCHANGES), "tail": "a"},
        {**encode(FORWARDED), "beginning": "x" * 1_000_000, "tail": 17 * packed(1.0, 1.0, 1.0)},
        {**encode(FORWARDED), "tail": packed(math.inf, 1.0, 1.0)},
        {**encode(FORWARDED), "tail": packed(1e12, 1.0, 1.0)},
        {"type": "run", "context": {"run_id": "s3cr3t"}},
        {"type": "spends", "id": 1, "uses": [["r", [1], "a", "v", 1]]},
        {"type": "spends", "id": 1, "uses": [["r", ["g"], "a", "v", "1"]]},
        {"type": "spends", "id": 1, "uses": [["r", ["g"], "a", "v"]]},
        {"type": "spends", "id": "1", "uses": []},
        {"type": "entered", "id": "1", "problems": []},
        {"type": "entered", "id": 1, "problems": [1]},
        {"type": "uses", "run_id": "r", "counts": [["g", "a", 2**31]]},
        {"type": "uses", "run_id": "r", "counts": [["g", "a", 0]]},
        {"type": "uses", "run_id": "r", "counts": [["g", "a"]]},
        {**encode(MESSAGES[0]), "version": 1},
        {**encode(MESSAGES[0]), "upstream": None},
    ],
)
def test_what_is_no_message_is_an_error_that_quotes_nothing(wire: Wire) -> None:
    with pytest.raises(MessageError) as error:
        decode(wire)

    assert "s3cr3t" not in str(error.value)


def test_the_key_is_not_in_the_repr() -> None:
    assert "s3cr3t" not in repr(MESSAGES[0])


def test_captured_tokens_are_shown_to_nobody() -> None:
    assert "s3cr3t" not in repr(Captured(7, "run_1", "github", {"access_token": "s3cr3t"}))


@pytest.mark.parametrize("change", [{"id": True}, {"expires_in": "1"}, {"tokens": ["s3cr3t"]}, {"tokens": {"a": 1}}])
def test_captured_tokens_that_are_none_are_an_error_that_quotes_nothing(change: Wire) -> None:
    wire = encode(Captured(7, "run_1", "github", {"access_token": "s3cr3t"}))

    with pytest.raises(MessageError) as error:
        decode({**wire, **change})
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize(
    "wire",
    [
        {"type": "ask", "id": "7", "grant": "aws", "question": {}},
        {"type": "ask", "id": 7, "grant": "aws", "question": {"run_id": "s3cr3t"}},
        {"type": "answered", "id": 7, "reply": {"status": 200, "headers": [["s3cr3t"]], "body": ""}},
        {"type": "answered", "id": 7, "reply": {"status": 200, "headers": [], "body": "s3cr3t?"}},
        {"type": "answered", "id": 7, "reply": {"status": 9, "headers": [], "body": ""}},
        {"type": "answered", "id": 7},
        {"type": "listen", "run_id": "r", "name": "tcp:"},
        {"type": "listen", "run_id": "r", "name": "unix:relative"},
    ],
)
def test_questions_answers_and_places_that_are_none_are_errors(wire: Wire) -> None:
    with pytest.raises(MessageError) as error:
        decode(wire)

    assert "s3cr3t" not in str(error.value)
