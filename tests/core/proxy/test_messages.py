from __future__ import annotations

import json

import pytest
from moat.api.runs import ExchangeRecord, NetworkPolicy, RunContext
from moat.proxy.messages import (
    Configure,
    Drop,
    Exchange,
    Exchanges,
    Listen,
    MessageError,
    Named,
    Ping,
    Pong,
    Ready,
    SetRun,
    Stop,
    ToDaemon,
    ToWorker,
    Wire,
    decode,
    encode,
)

RECORD = ExchangeRecord("run_1", "2026-01-01T00:00:00Z", "connect", "GET", "https", "a.example", 443, "/", 200,
                        "forwarded", grants=("github",))  # fmt: skip
MESSAGES: list[ToWorker | ToDaemon] = [
    Configure(
        "cert", "s3cr3t-key", "roots", {"a.example": "127.0.0.1:1"}, ("10.0.0.0/8",), "http://u:s3cr3t@p:1", ("*.corp",)
    ),
    SetRun(RunContext("run_1", "ab", NetworkPolicy("strict", ("a.example",))), {"a.example": "127.107.0.1"}),
    Listen("run_1", "dns-udp"),
    Drop("run_1"),
    Ping(7),
    Stop(),
    Ready(),
    Exchange(RECORD),
    Exchanges((RECORD, RECORD)),
    Named("run_1", "a.example", "127.107.0.1"),
    Pong(7),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_wire(message: ToWorker | ToDaemon) -> None:
    assert decode(json.loads(json.dumps(encode(message)))) == message


def test_unknown_fields_are_ignored() -> None:
    wire = encode(Exchange(RECORD))

    assert decode({**wire, "new": 1, "record": {**wire["record"], "new": 1}}) == Exchange(RECORD)


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"type": "unheard-of"},
        {"type": "ping", "id": "7"},
        {"type": "drop"},
        {"type": "listen", "run_id": "r", "name": "smtp"},
        {"type": "run", "context": {"run_id": "s3cr3t"}},
        {**encode(MESSAGES[0]), "version": 2},
        {**encode(MESSAGES[0]), "upstream": None},
    ],
)
def test_what_is_no_message_is_an_error_that_quotes_nothing(wire: Wire) -> None:
    with pytest.raises(MessageError) as error:
        decode(wire)

    assert "s3cr3t" not in str(error.value)


def test_the_key_is_not_in_the_repr() -> None:
    assert "s3cr3t" not in repr(MESSAGES[0])
