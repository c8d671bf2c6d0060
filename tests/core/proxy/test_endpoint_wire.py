from __future__ import annotations

import json
from typing import Any

import pytest
from moat.api.endpoints import Endpoint, Forward, OnHost, ProxyPath, Reply, Respond, Stream, Tcp, UnixPath, Upstream
from moat.api.errors import MoatError
from moat.api.rules import Match, RemoveHeader, Rule
from moat.proxy.endpoint_wire import endpoint_from_wire, endpoint_to_wire, reply_from_wire, reply_to_wire

RULE = RemoveHeader(Match("a.example"), "X")
UPSTREAM = Upstream("a.example:1", tls=True, ca="CA", client_certificate="s3cr3t", alpn=("h2",))


def rule_to_wire(rule: Rule) -> dict[str, Any]:
    assert rule == RULE
    return {"rule": 1}


def rule_from_wire(wire: dict[str, Any]) -> Rule:
    assert wire == {"rule": 1}
    return RULE


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint(ProxyPath("/_moat/a/"), Forward(UPSTREAM, (RULE,)), "a"),
        Endpoint(Tcp("db.internal", 5432, tls=False), Stream(UPSTREAM, b"\0\xff s3cr3t"), "a"),
        Endpoint(UnixPath("/run/a/b.sock"), Respond("words", Reply(404, (("X", "y"),), b"\xff")), "a"),
        Endpoint(UnixPath("/run/a/c.sock"), Respond("asked")),
        Endpoint(Tcp("host.moat.internal", 5432, tls=False), OnHost(5432)),
    ],
    ids=["forward", "stream", "fixed", "asked", "on the host"],
)
def test_an_endpoint_survives_the_wire_whole(endpoint: Endpoint) -> None:
    wire = json.loads(json.dumps(endpoint_to_wire(endpoint, rule_to_wire)))

    assert endpoint_from_wire(wire, rule_from_wire) == endpoint


@pytest.mark.parametrize(
    "change",
    [
        {"where": {}},
        {"where": {"name": "nodot", "port": 1}},
        {"where": {"name": "a.b", "port": "1"}},
        {"where": {"path": "relative.sock"}},
        {"how": {"do": "run"}},
        {"how": {"do": "stream", "upstream": {"address": "a"}, "prelude": ""}},
        {"how": {"do": "respond", "name": "a", "reply": {"status": 99, "headers": [], "body": ""}}},
        {"how": {"do": "respond", "name": "a", "reply": {"status": 200, "headers": [], "body": "?"}}},
        {"grant": None},
    ],
    ids=repr,
)
def test_what_is_damaged_is_an_error(change: dict[str, Any]) -> None:
    wire = endpoint_to_wire(Endpoint(Tcp("db.internal"), Stream(UPSTREAM)), rule_to_wire)

    with pytest.raises((KeyError, TypeError, ValueError, MoatError)):
        endpoint_from_wire({**wire, **change}, rule_from_wire)


def test_a_reply_survives_too() -> None:
    reply = Reply(201, (("A", "b"), ("A", "c")), b"s3cr3t \0")

    assert reply_from_wire(json.loads(json.dumps(reply_to_wire(reply)))) == reply


def test_no_upstream_comes_through_the_wire_as_a_port_of_this_machine() -> None:
    endpoint = Endpoint(Tcp("db.internal", 1, tls=False), Stream(OnHost(1).upstream))

    read = endpoint_from_wire(endpoint_to_wire(endpoint, rule_to_wire), rule_from_wire)

    assert isinstance(read.how, Stream)
    assert not read.how.upstream.is_here
