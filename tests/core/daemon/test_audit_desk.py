from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from contextlib import closing

from moat.api.errors import AuditUnwritable
from moat.audit.log import Note
from moat.daemon.audit_desk import NOT_LIVE, Desk
from moat.frames import HEADER, FrameChannel
from moat.proxy.entering import Entered, Spend, Spends
from moat.proxy.messages import decode, encode

from core.daemon.making import OTHER_ID, RUN_ID

API = "https://api.apple.test"


class Log:
    """Takes notes, but for those of runs that are over. problem: why it takes none."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.over: set[str] = set()
        self.problem = ""
        self.calls = 0

    def append(self, notes: Sequence[Note]) -> list[bool]:
        if self.problem:
            raise AuditUnwritable(self.problem)
        self.calls += 1
        self.notes += notes
        return [note.chain not in self.over for note in notes]


def a_use(*grants: str, run_id: str = RUN_ID, tunnel: int = 1) -> Spend:
    return Spend(run_id, grants, API, "connect", tunnel)


def test_uses_of_one_message_are_entered_at_once_and_those_that_are_alike_are_one_entry() -> None:
    log = Log()
    desk = Desk(log.append, lambda _: True)

    uses = (a_use("apple", "pear"), a_use("apple", tunnel=2), a_use("apple", run_id=OTHER_ID, tunnel=3))
    assert desk.enter(Spends(7, uses)) == Entered(7)
    assert log.calls == 1
    at = {"authority": API, "via": "connect"}
    assert [(note.chain, note.kind, note.facts) for note in log.notes] == [
        (RUN_ID, "used", {"grant": "apple", **at, "tunnels": [1, 2]}),
        (RUN_ID, "used", {"grant": "pear", **at, "tunnel": 1}),
        (OTHER_ID, "used", {"grant": "apple", **at, "tunnel": 3}),
    ]


def test_each_use_is_answered_for_itself() -> None:
    log = Log()
    log.over.add(OTHER_ID)
    desk = Desk(log.append, lambda run_id: run_id != "run_gone")
    uses = (a_use("apple"), a_use(), a_use("apple", run_id="run_gone"), a_use("apple", run_id=OTHER_ID))

    assert desk.enter(Spends(1, uses)).problems == ("", NOT_LIVE, NOT_LIVE, "the run is over")
    assert [note.chain for note in log.notes] == [RUN_ID, OTHER_ID]
    log.problem = "no space left on the disk"
    assert desk.enter(Spends(2, uses[:2])).problems == (log.problem, NOT_LIVE)
    assert desk.enter(Spends(3, uses[1:2])).problems == (NOT_LIVE,)


async def test_a_worker_is_answered_over_its_socket_until_it_is_gone() -> None:
    log, (ours, theirs) = Log(), socket.socketpair()
    Desk(log.append, lambda _: True).open(ours)
    channel = FrameChannel(theirs)
    async with asyncio.timeout(30):
        for number in (1, 2):
            channel.send(encode(Spends(number, (a_use("apple", tunnel=number),))))
            received = await channel.receive()
            assert received is not None
            assert decode(received[0]) == Entered(number)
    channel.close()

    assert [note.facts["tunnel"] for note in log.notes] == [1, 2]
    assert await ended(ours)


async def test_who_says_something_else_is_left() -> None:
    for said in (b"\xff" * 64, HEADER.pack(2, 0) + b"[]", HEADER.pack(1, 0) + b"{", HEADER.pack(9, 0) + b"{}"):
        ours, theirs = socket.socketpair()
        Desk(Log().append, lambda _: True).open(ours)
        with closing(theirs):
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            assert await asyncio.to_thread(theirs.recv, 1) == b"", said
        assert await ended(ours)


async def test_other_messages_are_left_alone() -> None:
    ours, theirs = socket.socketpair()
    Desk(Log().append, lambda _: True).open(ours)
    with closing(theirs):
        for message in ({"type": "pong", "id": 1}, encode(Spends(3, ()))):
            text = json.dumps(message).encode()
            theirs.sendall(HEADER.pack(len(text), 0) + text)
        length, _ = HEADER.unpack(await asyncio.to_thread(theirs.recv, HEADER.size))
        assert decode(json.loads(await asyncio.to_thread(theirs.recv, length))) == Entered(3)


async def ended(sock: socket.socket) -> bool:
    """Wait until the desk's thread has closed its socket."""
    async with asyncio.timeout(30):
        while sock.fileno() >= 0:  # noqa: ASYNC110 # a thread's doing
            await asyncio.sleep(0.001)
    return True
