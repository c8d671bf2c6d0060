"""The messages, in this process; the process itself is tested in tests/integration/test_worker.py."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from typing import Any

import pytest
from moat.api.endpoints import Endpoint, Forward, ProxyPath, Upstream
from moat.api.rules import Match, SetHeader
from moat.frames import FrameChannel, Message
from moat.log import Redactor
from moat.proxy.messages import Configure, Drop, Listen, Ping, SetRun, Stop, ToWorker, encode
from moat.proxy.server.worker import main, serve
from support.worker import RUN, a_run

from core.proxy.server.pairs import CA

CONFIGURE = Configure(CA.certificate_pem, CA.key_pem)


async def serving(channel: socket.socket, redactor: Redactor | None = None) -> None:
    """Serve until the channel's end, with an audit that hangs up at once."""
    audit, theirs = socket.socketpair()
    audit.close()
    await serve(FrameChannel(channel), FrameChannel(theirs), redactor or Redactor())


async def talk(*messages: ToWorker | Message, redactor: Redactor | None = None) -> list[Any]:
    """Send messages, then stop; return the types that came back, with ids."""
    ours, theirs = socket.socketpair()
    daemon = FrameChannel(ours)
    back: list[Any] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(serving(theirs, redactor))
        for message in (*messages, Stop()):
            daemon.send(message if isinstance(message, dict) else encode(message))
        while (received := await daemon.receive()) is not None:
            back.append(received[0].get("id", received[0]["type"]))
    daemon.close()
    return back


async def test_it_says_ready_answers_pings_in_order_and_stops() -> None:
    assert await talk(Ping(1), CONFIGURE, Ping(2)) == ["ready", 1, 2]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "unheard-of"},
        {"type": "pong", "id": 1},
        encode(Listen(RUN, "proxy")),
        {**encode(CONFIGURE), "ca_key": "x"},
        encode(SetRun(a_run(rules=(SetHeader(Match("*.bad"), "A", "s3cr3t"),)))),
    ],
    ids=["unknown", "for the daemon", "no descriptor", "broken key", "rule for no host"],
)
async def test_a_bad_message_is_logged_without_secrets_and_the_next_is_obeyed(
    message: Message, caplog: pytest.LogCaptureFixture
) -> None:
    assert await talk(message, Ping(1)) == ["ready", 1]
    assert "a message was not obeyed" in caplog.text
    assert "s3cr3t" not in caplog.text + str([record.__dict__ for record in caplog.records])


async def test_the_end_of_the_channel_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    ours.close()

    async with asyncio.timeout(30):
        await serving(theirs)


async def test_the_secrets_of_rules_are_blotted_out_of_the_log() -> None:
    redactor = Redactor()
    rule, own = (SetHeader(Match("a.example"), "A", f"Bearer s3cr3t-{what}") for what in ("token", "endpoint"))
    endpoint = Endpoint(ProxyPath("/_moat/a/"), Forward(Upstream("a.example"), (own,)))
    await talk(SetRun(replace(a_run(rules=(rule,)), endpoints=(endpoint,))), Drop(RUN), redactor=redactor)

    assert redactor.clean("x s3cr3t-token s3cr3t-endpoint y") == "x [redacted] [redacted] y"


async def test_descriptors_that_nobody_takes_are_closed() -> None:
    ours, theirs = socket.socketpair()
    daemon, (reading, writing) = FrameChannel(ours), os.pipe()
    async with asyncio.TaskGroup() as group:
        group.create_task(serving(theirs))
        daemon.send(encode(Ping(1)), (writing,))
        os.close(writing)
        daemon.send(encode(Stop()))
        while await daemon.receive() is not None:
            pass
    daemon.close()

    assert os.read(reading, 1) == b""  # end of file: no copy of the other end is left
    os.close(reading)


def test_it_wants_a_channel() -> None:
    with pytest.raises(SystemExit):
        main([])
