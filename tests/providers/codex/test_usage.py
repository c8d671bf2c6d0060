from __future__ import annotations

import json

import pytest
from moat.proxy.record import Usage
from moat.proxy.usage import Meter
from moat_provider_codex.usage import read_usage

RULE = read_usage("api.openai.com", "openai")
RESPONSE = {
    "model": "gpt-5-2025-08-07",
    "usage": {"input_tokens": 1000, "input_tokens_details": {"cached_tokens": 400}, "output_tokens": 100},
}
COMPLETION = {
    "model": "gpt-4o-mini-2024-07-18",
    "usage": {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens": 100},
}
READ = Usage("gpt-5-2025-08-07", 1000, 100, 400, 0.0018)


@pytest.mark.parametrize(
    ("answer", "expected"), [(RESPONSE, READ), (COMPLETION, Usage("gpt-4o-mini-2024-07-18", 1000, 100, 0, 0.00021))]
)
def test_an_answer_is_read(answer: object, expected: Usage) -> None:
    meter = Meter(RULE, is_stream=False)
    meter.feed(json.dumps(answer).encode())

    assert meter.usage() == expected


def test_the_last_event_of_a_stream_says_it() -> None:
    meter = Meter(RULE, is_stream=True)
    for event in ({"type": "response.created", "response": {"model": "gpt-5", "usage": None}},
                  {"type": "response.completed", "response": RESPONSE}):  # fmt: skip
        meter.feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    assert meter.usage() == READ
