from __future__ import annotations

import json

from moat.proxy.record import Usage
from moat.proxy.usage import Meter
from moat_provider_claude.usage import read_usage

RULE = read_usage("api.anthropic.com", "anthropic")
USAGE = {"input_tokens": 100, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 1000, "output_tokens": 1}


def read(data: bytes, *, is_stream: bool = False) -> Usage:
    meter = Meter(RULE, is_stream=is_stream)
    meter.feed(data)
    return meter.usage()


def test_a_message_is_read() -> None:
    answer = json.dumps({"type": "message", "model": "claude-sonnet-4-5-20250929", "usage": USAGE}).encode()

    assert read(answer) == Usage("claude-sonnet-4-5-20250929", 1120, 1, 1000, 0.00069)


def test_a_stream_ends_with_the_tokens_that_were_made() -> None:
    start = {"type": "message_start", "message": {"model": "claude-opus-4-5", "usage": USAGE}}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 200}}
    stream = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in (start, delta)).encode()

    assert read(stream, is_stream=True) == Usage("claude-opus-4-5", 1120, 200, 1000, 0.006125)
