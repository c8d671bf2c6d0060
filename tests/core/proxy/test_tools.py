from __future__ import annotations

import json
from typing import Any

import pytest
from moat.api.http import Authority, Headers, RequestHead
from moat.api.rules import Match, OnlyTools, ReplaceToken
from moat.proxy.http1 import Request, read_request
from moat.proxy.refusal import Refusal
from moat.proxy.substitute import Applied, substitute
from moat.proxy.tools import ToolTask, tool_task, tools_called

ONLY = OnlyTools(Match("mcp.example.com"), ("read", "list"))
HEAD = RequestHead("POST", Authority("https", "mcp.example.com", 443), "/mcp")


def a_call(tool: str = "read", **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, **params}}


def a_request(*lines: str) -> Request:
    return read_request("\r\n".join(("POST /mcp HTTP/1.1", "Host: mcp.example.com", *lines)))


def the_task(rules: Any = (ONLY,), head: RequestHead = HEAD) -> ToolTask:
    task = tool_task(rules, head, a_request(), None, has_body=True)
    assert isinstance(task, ToolTask)
    return task


@pytest.mark.parametrize(
    "body",
    [
        a_call("read"),
        [a_call("read"), a_call("list", arguments={"Name": "x", "method": "tools/call"})],
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        [],
    ],
)
def test_what_calls_listed_tools_only_leaves_as_it_came(body: Any) -> None:
    data = json.dumps(body, indent=3).encode()

    assert the_task().apply(data) == Applied(data)


@pytest.mark.parametrize(
    "body",
    [
        a_call("delete"),
        a_call("Read"),
        [a_call("read"), a_call("delete")],
        [[a_call("delete")]],
        {"method": "tools/call"},
        {"method": "tools/call", "params": {"name": ["read"]}},
        {"Method": "tools/call", "params": {"name": "delete"}},
        {"method": "tools/call", "Params": {"name": "delete"}, "params": {"name": "read"}},
        {"method": "tools/call", "params": {"name": "read", "NAME": "delete"}},
        "text",
    ],
)
def test_any_other_call_is_refused_alone_and_in_a_batch(body: Any) -> None:
    with pytest.raises(Refusal) as refused:
        the_task().apply(json.dumps(body).encode())

    assert (refused.value.status, refused.value.outcome, refused.value.kind) == (403, "denied", "tools")


@pytest.mark.parametrize(
    "body",
    [
        b'{"method":"tools/call","params":{"name":"read","name":"delete"}}',
        b'{"method":"tools/call","params":{"name":"read"},"params":{"name":"delete"}}',
        b"not json",
        b"",
        b"\xff\xfe{\x00}\x00",
        b"[" * 200_000,
    ],
    ids=["name twice", "params twice", "no JSON", "nothing", "UTF-16", "deep"],
)
def test_what_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        tools_called(body)


def test_a_body_that_is_too_long_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        the_task((OnlyTools(ONLY.match, ("read",), limit_bytes=10),)).give_up()

    assert refused.value.status == 413


def test_what_cannot_be_looked_at_is_refused() -> None:
    upgraded = a_request("Connection: Upgrade", "Upgrade: SPDY/3.1")
    with pytest.raises(Refusal):
        tool_task([ONLY], HEAD, upgraded, None, has_body=False)
    packed = HEAD.with_headers(Headers((("Content-Encoding", "gzip"),)))
    with pytest.raises(Refusal) as refused:
        tool_task([ONLY], packed, a_request(), None, has_body=True)
    assert refused.value.status == 415


def test_without_a_rule_for_it_a_body_is_left_alone() -> None:
    other = OnlyTools(Match("mcp.example.com", methods=("PUT",)), ("read",))

    assert tool_task([other], HEAD, a_request(), None, has_body=True) is None


def test_placeholders_are_replaced_after_the_tools_were_looked_at() -> None:
    token = ReplaceToken(ONLY.match, "moat-placeholder", "s3cr3t", where=("body",), grant="g")
    head = HEAD.with_headers(Headers((("Content-Type", "application/json"),)))
    then = substitute([token], head, has_body=True).body
    task = tool_task([ONLY, token], head, a_request(), then, has_body=True)
    assert task is not None

    applied = task.apply(json.dumps(a_call("read", arguments={"key": "moat-placeholder"})).encode())

    assert b"s3cr3t" in applied.body
    assert applied.grants == ("g",)
    with pytest.raises(Refusal):
        task.apply(json.dumps(a_call("delete")).encode())
