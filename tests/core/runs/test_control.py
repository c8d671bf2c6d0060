from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from moat.frames import TAIL, FrameChannel, Message
from moat.paths import CONTROL_SOCKET, socket_address
from moat.runs.console import Console, Shape
from moat.runs.control import Control
from moat.runs.journal import Journal


class Taken:
    """The signals that clients sent, as Interrupts would be told of them."""

    def __init__(self) -> None:
        self.signals: asyncio.Queue[tuple[int, float | None]] = asyncio.Queue()

    def take(self, number: int, grace_s: float | None = None) -> None:
        self.signals.put_nowait((number, grace_s))

    async def next(self) -> tuple[int, float | None]:
        async with asyncio.timeout(30):
            return await self.signals.get()


def client_of(folder: Path) -> FrameChannel:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(socket_address(folder / CONTROL_SOCKET))
    return FrameChannel(sock)


async def hear(client: FrameChannel) -> Message | None:
    async with asyncio.timeout(30):
        received = await client.receive()
    return None if received is None else received[0]


async def test_signals_reach_the_run_and_its_end_every_client(tmp_path: Path) -> None:
    taken, control = Taken(), Control()
    async with control.talking(taken.take):
        async with control.serving(tmp_path):
            assert (tmp_path / CONTROL_SOCKET).stat().st_mode & 0o777 == 0o600
            client = client_of(tmp_path)
            client.send({"signal": 15, "grace_s": 3})
            assert await taken.next() == (15, 3.0)
            client.send({"ask": "wait"})
            client.send({"signal": 1})  # answered after the question before it
            assert await taken.next() == (1, None)
            control.sealed("a caveat")
            assert await hear(client) == {"event": "sealed", "caveat": "a caveat"}
        await control.part({"event": "ended", "code": 7})
        assert await hear(client) == {"event": "ended", "code": 7}
    assert await hear(client) is None
    assert not (tmp_path / CONTROL_SOCKET).exists()
    client.close()


async def test_who_asks_after_the_seal_is_told_of_it(tmp_path: Path) -> None:
    control = Control()
    async with control.talking(Taken().take), control.serving(tmp_path):
        control.sealed("")
        client = client_of(tmp_path)
        client.send({"ask": "wait"})
        assert await hear(client) == {"event": "sealed", "caveat": ""}
        client.close()


async def test_a_run_whose_caller_holds_its_output_refuses_to_show_it(tmp_path: Path) -> None:
    control = Control()
    async with control.talking(Taken().take), control.serving(tmp_path):
        client = client_of(tmp_path)
        client.send({"ask": "attach", "rows": 24, "columns": 80})
        assert await hear(client) == {"event": "refused"}
        client.close()


async def test_a_first_client_that_leaves_before_the_seal_stops_the_start(tmp_path: Path) -> None:
    taken, (ours, theirs) = Taken(), socket.socketpair()
    async with Control(first=theirs).talking(taken.take):
        ours.close()
        assert await taken.next() == (signal.SIGHUP, None)


async def test_a_first_client_that_leaves_after_the_seal_does_not(tmp_path: Path) -> None:
    taken, (ours, theirs) = Taken(), socket.socketpair()
    control = Control(first=theirs)
    async with control.talking(taken.take), control.serving(tmp_path):
        control.sealed("")
        ours.close()
        other = client_of(tmp_path)
        other.send({"signal": 10})
        assert await taken.next() == (10, None)
        assert taken.signals.empty()
        other.close()


async def test_garbage_ends_one_talk_and_nothing_else(tmp_path: Path) -> None:
    taken, control = Taken(), Control(Console(Shape(), Journal(tmp_path)))
    async with control.talking(taken.take), control.serving(tmp_path):
        messages: list[Message] = [
            {"signal": "x"}, {"resize": 3}, {"ask": "attach"}, {"ask": "attach", "rows": None, "columns": 1},
            {"keys": 1},
        ]  # fmt: skip
        for message in messages:
            client = client_of(tmp_path)
            client.send(message)
            assert await hear(client) is None, message
            client.close()
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(socket_address(tmp_path / CONTROL_SOCKET))
        raw.sendall(b"\xff" * 100)
        assert await asyncio.to_thread(raw.recv, 1) == b""
        raw.close()
        client = client_of(tmp_path)
        client.send({"signal": 2})
        assert await taken.next() == (2, None)
        client.close()


async def test_keys_and_sizes_reach_the_console(tmp_path: Path) -> None:
    taken, console = Taken(), Console(Shape((24, 80)), Journal(tmp_path))
    control = Control(console)
    async with control.talking(taken.take), control.serving(tmp_path):
        with console:
            async with asyncio.TaskGroup() as group:
                carrying = group.create_task(console.carry())
                control.sealed("")
                assert await taken.next() == (signal.SIGWINCH, None)
                client = client_of(tmp_path)
                client.send({"ask": "attach", "rows": 50, "columns": 100})
                assert await taken.next() == (signal.SIGWINCH, None)
                assert console.resize() == (50, 100)
                client.send({"keys": 2, TAIL: b"hi"})
                await hear(client)
                echoed = await hear(client)
                assert echoed is not None
                assert echoed[TAIL] == b"hi"
                carrying.cancel()
        client.close()


async def test_who_attaches_and_leaves_is_noted_but_for_the_client_that_began_the_run(tmp_path: Path) -> None:
    noted: list[str] = []

    async def note(kind: str, facts: Mapping[str, str]) -> None:
        assert not facts
        noted.append(kind)

    first, theirs = socket.socketpair()
    taken, control = Taken(), Control(Console(Shape((24, 80)), Journal(tmp_path)), theirs)
    async with control.talking(taken.take), control.serving(tmp_path, note):
        control.sealed("")
        began = FrameChannel(first)
        began.send({"ask": "attach", "rows": 24, "columns": 80})
        await hear(began)
        for asks in ("attach", "wait"):
            client = client_of(tmp_path)
            client.send({"ask": asks, "rows": 24, "columns": 80})
            await hear(client)
            client.close()
        async with asyncio.timeout(30):
            while len(noted) < 2:  # noqa: ASYNC110 # the other end notices that a client is gone
                await asyncio.sleep(0.01)
    began.close()

    assert noted == ["attached", "detached"]


async def test_a_socket_that_a_killed_launcher_left_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / CONTROL_SOCKET))
    left.close()
    taken, control = Taken(), Control()
    async with control.talking(taken.take), control.serving(tmp_path):
        client = client_of(tmp_path)
        client.send({"signal": 1})
        assert await taken.next() == (1, None)
        client.close()


async def test_who_asked_is_told_what_the_run_waits_for(tmp_path: Path) -> None:
    taken, control = Taken(), Control()
    async with control.talking(taken.take):
        async with control.serving(tmp_path):
            client = client_of(tmp_path)
            client.send({"ask": "wait"})
            client.send({"signal": 1})  # answered after the question before it
            await taken.next()
            control.tell("db is ready")
            assert await hear(client) == {"event": "told", "line": "db is ready"}
        await control.part({"event": "ended", "code": 0})
    client.close()
