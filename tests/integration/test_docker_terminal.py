"""A run with a terminal in a container, and one whose output goes elsewhere."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from typing import IO

import pytest
from support.docker_place import DockerPlace, docker_place, is_there, left_behind
from support.installation import eventually

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not is_there(), reason="no container engine with the image"),
]
WAIT_FOR_SIZE = 'n=0; until [ "$(stty size)" = "33 44" ] || [ $n = 200 ]; do n=$((n+1)); sleep 0.05; done; stty size'


@pytest.fixture(scope="module")
def place() -> Iterator[DockerPlace]:
    with docker_place("") as made:
        yield made


class Screen:
    """The launcher's pseudo-terminal, read to its end in a thread."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.text = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> bytes:
        os.close(self.slave)
        self._thread.join(10)
        os.close(self.master)
        return self.text

    def _read(self) -> None:
        try:
            while data := os.read(self.master, 65_536):
                self.text += data
        except OSError:
            return  # the last other end is closed


def start(place: DockerPlace, screen: Screen, script: str, stdout: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    return place.start("sh", "-c", script, stdin=screen.slave, stdout=stdout or screen.slave, terminal=[33, 44])


def test_the_command_has_a_terminal_of_the_right_size(place: DockerPlace) -> None:
    screen = Screen()
    process = start(place, screen, f"test -t 0 && test -t 1 && test -t 2 && {WAIT_FOR_SIZE}; exit 5")

    assert process.wait(60) == 5
    assert screen.end() == b"33 44\r\n"


def test_every_key_reaches_the_command(place: DockerPlace) -> None:
    screen = Screen()
    keys = b"\x10\x11\x03\x1a\x00\x04\xc3\xa9"
    process = start(place, screen, f"stty raw -echo; echo ready; head -c {len(keys)} | od -An -tx1")
    eventually("the command reads keys", lambda: b"ready" in screen.text)

    screen.type(keys)

    assert process.wait(60) == 0
    assert screen.end().split(b"\n", 1)[1].split() == [b"%02x" % key for key in keys]


def test_an_interrupt_key_interrupts(place: DockerPlace) -> None:
    screen = Screen()
    process = start(place, screen, "trap 'exit 42' INT; echo ready; while :; do sleep 0.1; done")
    eventually("the command waits", lambda: b"ready" in screen.text)

    screen.type(b"\x03")

    assert process.wait(60) == 42
    screen.end()


def test_output_to_a_file_stays_plain_and_can_be_interrupted(place: DockerPlace) -> None:
    screen = Screen()
    path = place.root / "output"
    with path.open("wb") as file:
        process = start(place, screen, "trap 'exit 42' INT; echo ready; while :; do sleep 0.1; done", file)
    eventually("the command waits", lambda: b"ready" in path.read_bytes())

    screen.type(b"\x03")

    assert process.wait(60) == 42
    assert path.read_bytes() == b"ready\n"
    screen.end()


def test_nothing_is_left(place: DockerPlace) -> None:
    eventually("everything of the runs is removed", lambda: not left_behind())
