from __future__ import annotations

import asyncio
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.errors import SandboxFailed
from moat.api.runtimes import Stdio
from moat.frames import TAIL, FrameChannel, Message
from moat.runs.viewer import DETACH_KEYS, DetachKeys, RunFailed, Sight, Viewer


def test_the_keys_that_leave_are_found_and_not_typed() -> None:
    assert DetachKeys().take(b"ab\x10\x11cd") == (b"ab", True)
    keys = DetachKeys()
    assert keys.take(b"a\x10") == (b"a", False)
    assert keys.take(b"\x11") == (b"", True)


def test_the_first_of_them_alone_is_typed_once_another_key_follows() -> None:
    keys = DetachKeys()
    assert keys.take(b"\x10") == (b"", False)
    assert keys.take(b"x") == (b"\x10x", False)
    assert DetachKeys().take(b"\x10\x10\x11") == (b"\x10", True)


@given(st.lists(st.binary(max_size=5)))
def test_whatever_else_is_typed_arrives_unchanged(pieces: list[bytes]) -> None:
    typed = b"".join(pieces)
    keys, arrived = DetachKeys(), b""
    for piece in pieces:
        on, leaves = keys.take(piece)
        arrived += on
        if leaves:
            assert typed.partition(DETACH_KEYS)[0] == arrived
            return
    assert DETACH_KEYS not in typed
    assert arrived in (typed, typed[:-1])  # its last key may be the first of them


class Said:
    """A supervisor's end of the socket, and descriptors that a viewer may write to."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.read, self.write = os.pipe()
        self.errors_read, self.errors_write = os.pipe()
        self.nothing = os.open(os.devnull, os.O_RDONLY)
        self.caveats: list[str] = []
        self.told: list[str] = []
        self.viewer = Viewer(
            theirs, Stdio(self.nothing, self.write, self.errors_write), self.caveats.append, self.told.append
        )

    async def hears(self, *messages: Message, until_sealed: bool = False) -> Sight:
        channel = FrameChannel(self.ours)
        for message in messages:
            channel.send(message)
        try:
            async with asyncio.timeout(30):
                return await self.viewer.follow(until_sealed=until_sealed)
        finally:
            channel.close()

    def close(self) -> None:
        for descriptor in (self.read, self.write, self.errors_read, self.errors_write, self.nothing):
            os.close(descriptor)


async def test_output_goes_where_the_run_sent_it_and_the_code_is_the_runs() -> None:
    said = Said()
    sight = await said.hears(
        {"event": "sealed", "caveat": "c"}, {"stream": "stdout", TAIL: b"out"}, {"stream": "stderr", TAIL: b"err"},
        {"event": "ended", "code": 3},
    )  # fmt: skip
    assert (sight, said.caveats) == (Sight("ended", 3), ["c"])
    assert (os.read(said.read, 10), os.read(said.errors_read, 10)) == (b"out", b"err")
    said.close()


async def test_a_detached_start_leaves_once_it_is_sealed() -> None:
    said = Said()
    assert await said.hears({"event": "sealed", "caveat": ""}, until_sealed=True) == Sight("left")
    said.close()


async def test_what_the_supervisor_refused_is_raised_as_it_said_it() -> None:
    said = Said()
    with pytest.raises(RunFailed, match="not sealed") as raised:
        await said.hears({"event": "failed", "problem": "not sealed", "hint": "run: moat doctor", "code": 4})
    assert (raised.value.hint, raised.value.exit_code) == ("run: moat doctor", 4)
    said.close()


@pytest.mark.parametrize(
    "last", [{"event": "crashed", "traceback": "Traceback"}, {"event": "ended"}, {"stream": "stdout"}]
)
async def test_a_supervisor_that_fails_is_an_error(last: Message) -> None:
    said = Said()
    with pytest.raises(SandboxFailed):
        await said.hears(last)
    said.close()


async def test_a_supervisor_that_is_gone_is_an_error() -> None:
    said = Said()
    said.ours.close()
    with pytest.raises(SandboxFailed, match="gone"):
        async with asyncio.timeout(30):
            await said.viewer.follow()
    said.close()


async def test_what_the_run_waits_for_is_told() -> None:
    said = Said()
    assert await said.hears({"event": "told", "line": "db is ready"}, {"event": "ended", "code": 0}) == Sight(
        "ended", 0
    )
    assert said.told == ["db is ready"]
    said.close()


async def test_what_is_told_while_the_run_has_the_terminal_comes_after_it() -> None:
    said = Said()
    os.set_blocking(said.read, False)
    before: list[bytes] = []
    said.viewer._told = lambda line: before.append(line.encode() + os.read(said.read, 10))
    late: Message = {"event": "told", "line": "db ended: "}
    output: Message = {"stream": "stdout", TAIL: b"x"}
    await said.hears({"event": "sealed", "caveat": ""}, late, output, {"event": "ended", "code": 0})
    assert before == [b"db ended: x"]
    said.close()
