"""Bytes between a container and descriptors of whatever kind."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import termios
from collections.abc import Iterator
from typing import cast

import pytest
from moat.api.errors import SandboxFailed
from moat.api.runtimes import Stdio
from moat.runtimes.docker_engine import STDERR, STDOUT, Attachment
from moat.runtimes.docker_stdio import (
    drain,
    feed,
    feed_keys,
    is_terminal_wanted,
    own_descriptors,
    read_some,
    set_up_terminal,
    write_all,
)


class Container:
    """Stands in for an attachment: remembers its input, says what it is told to say."""

    def __init__(self, *output: tuple[int, bytes], gone: bool = False) -> None:
        self.input = b""
        self.ended = 0
        self._output = list(output)
        self._gone = gone

    async def read(self) -> tuple[int, bytes] | None:
        await asyncio.sleep(0)
        return self._output.pop(0) if self._output else None

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        if self._gone:
            raise BrokenPipeError
        self.input += data

    def end_input(self) -> None:
        self.ended += 1

    @property
    def attachment(self) -> Attachment:
        return cast("Attachment", self)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for number in (reader, writer):
        try:
            os.close(number)
        except OSError:
            continue


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


async def test_input_is_sent_whole_and_then_ended(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"some input")
    os.close(writer)
    container = Container()

    await feed(reader, container.attachment)

    assert (container.input, container.ended) == (b"some input", 1)


async def test_a_plain_file_is_sent_whole() -> None:
    container = Container()
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 200_000)
        file.seek(0)

        await feed(file.fileno(), container.attachment)

    assert (len(container.input), container.ended) == (200_000, 1)


async def test_an_input_that_is_closed_has_ended(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])

    assert await read_some(pipe[0]) == b""


async def test_a_container_that_ends_first_is_no_error(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"too late")
    container = Container(gone=True)

    await feed(pipe[0], container.attachment)

    assert container.ended == 0


async def test_output_and_errors_go_where_they_belong() -> None:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdio = Stdio(-1, out.fileno(), err.fileno())

        await drain(Container((STDOUT, b"a"), (STDERR, b"b"), (STDOUT, b"c")).attachment, stdio, pytest.fail)

        assert (os.pread(out.fileno(), 9, 0), os.pread(err.fileno(), 9, 0)) == (b"ac", b"b")


async def test_a_reader_that_is_gone_is_told_once_and_the_rest_dropped(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    told: list[str] = []
    output = Container((STDOUT, b"a"), (STDOUT, b"b"))

    await drain(output.attachment, Stdio(-1, pipe[1], pipe[1]), lambda: told.append("broken"))

    assert told == ["broken"]


async def test_output_that_a_disk_does_not_take_ends_the_command() -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: ASYNC230, PTH123 # a device that never makes one wait
        stdio = Stdio(-1, full.fileno(), full.fileno())
        told: list[str] = []
        output = Container((STDOUT, b"a"), (STDOUT, b"b"))
        with pytest.raises(SandboxFailed, match="cannot be written: No space left on device"):
            await drain(output.attachment, stdio, lambda: told.append("broken"))

    assert told == ["broken"]
    assert await output.read() is None


async def test_a_full_pipe_does_not_stop_the_loop(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    data = os.urandom(500_000)
    got = bytearray()

    async with asyncio.TaskGroup() as group:
        group.create_task(write_all(writer, data))
        while len(got) < len(data):
            got += await read_some(reader)

    assert bytes(got) == data
    assert os.get_blocking(writer)


async def test_keys_that_mean_signals_are_taken_out() -> None:
    master, slave = os.openpty()
    set_up_terminal(Stdio(slave, slave, slave), has_one_inside=False)
    container, signals = Container(), list[int]()

    async def signalled(number: int) -> None:
        signals.append(number)
        if number == signal.SIGQUIT:
            os.close(master)

    os.write(master, b"yes\r\x03no\r\x04\x1c")
    await feed_keys(slave, container.attachment, signalled)

    os.close(slave)
    assert (container.input, signals, container.ended) == (b"yes\nno\n", [signal.SIGINT, signal.SIGQUIT], 2)


def test_a_terminal_inside_gets_every_byte_as_it_is(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    set_up_terminal(Stdio(slave, slave, slave), has_one_inside=True)

    os.write(master, b"\x03\r")

    assert os.read(slave, 9) == b"\x03\r"
    assert not termios.tcgetattr(slave)[3] & termios.ECHO


def test_a_terminal_is_wanted_only_where_output_goes_to_one(terminal: tuple[int, int], pipe: tuple[int, int]) -> None:
    _, slave = terminal

    assert is_terminal_wanted(Stdio(slave, slave, pipe[1]))
    assert not is_terminal_wanted(Stdio(slave, pipe[1], slave))
    assert not is_terminal_wanted(Stdio(pipe[0], slave, slave))


def test_copies_outlive_the_launchers_own(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with own_descriptors(Stdio(reader, writer, writer)) as copies:
        os.close(writer)
        os.write(copies.stdout, b"still open")

        assert os.read(reader, 99) == b"still open"
    with pytest.raises(OSError, match="Bad file"):
        os.write(copies.stdout, b"closed")
