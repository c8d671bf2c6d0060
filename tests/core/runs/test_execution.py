"""The launcher's side of `moat exec`, at a real control socket; the sandbox is one that remembers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from moat.api.errors import SandboxFailed
from moat.api.runtimes import Execution, Stdio
from moat.frames import FrameChannel, Message
from moat.paths import CONTROL_SOCKET, socket_address
from moat.runs.control import Control
from moat.runs.execution import FILE_NAME as RECORD
from moat.runs.execution import LEFT_GRACE_S

from core.runs.fakes import FakeSandbox


class Holding(FakeSandbox):
    """A sandbox whose further commands are fakes too, and end when told to."""

    def __init__(self) -> None:
        super().__init__([])
        self.asked: tuple[tuple[str, ...], tuple[int, int] | None] | None = None
        self.refusal: SandboxFailed | None = None
        self.started = asyncio.Event()
        self.execution = FakeSandbox([], dies_of=(signal.SIGTERM, signal.SIGHUP))

    async def execute(self, argv: tuple[str, ...], stdio: Stdio, terminal: tuple[int, int] | None) -> Execution:
        if self.refusal is not None:
            raise self.refusal
        os.write(stdio.stdout, b"from there")
        self.asked = argv, terminal
        self.started.set()
        return self.execution


class Client:
    """Somebody at the control socket, with a pipe for the command's output."""

    def __init__(self, folder: Path) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(socket_address(folder / CONTROL_SOCKET))
        self.channel = FrameChannel(sock)
        self.reader, writer = os.pipe()
        self.given = (os.open(os.devnull, os.O_RDWR), writer, os.dup(writer))

    def ask(self, **words: object) -> None:
        self.channel.send({"ask": "exec", "argv": ["sh", "-c", "s3cr3t"], "size": None, **words}, self.given)

    async def hear(self) -> Message | None:
        async with asyncio.timeout(30):
            received = await self.channel.receive()
        return None if received is None else received[0]

    def close(self) -> None:
        self.channel.close()
        for number in (self.reader, *self.given):
            os.close(number)


def record(folder: Path) -> list[Message]:
    path = folder / RECORD
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ignored(number: int, grace_s: float | None = None) -> None:
    raise AssertionError("the run itself is signalled")


async def test_a_command_is_started_obeyed_recorded_and_its_end_told(tmp_path: Path) -> None:
    control, sandbox = Control(), Holding()
    noted: list[tuple[str, Mapping[str, str]]] = []

    async def note(kind: str, facts: Mapping[str, str]) -> None:
        noted.append((kind, facts))

    async with control.talking(ignored), control.serving(tmp_path, note):
        control.sealed("", sandbox)
        client = Client(tmp_path)
        client.ask(size=[24, 80])
        assert await client.hear() == {"event": "started"}
        assert sandbox.asked == (("sh", "-c", "s3cr3t"), (24, 80))
        assert await asyncio.to_thread(os.read, client.reader, 100) == b"from there"
        client.channel.send({"resize": [50, 100]})
        client.channel.send({"signal": 2})
        assert await sandbox.execution.signalled.get() == 2
        sandbox.execution.ended.set_result(7)
        assert await client.hear() == {"event": "exited", "code": 7}
        assert await client.hear() is None
        client.close()

    assert sandbox.execution.told == ["resize 50 100", "signal 2", "close"]
    assert sandbox.told == []
    assert noted == [
        ("exec", {"program": "sh", "terminal": "true"}), ("exec-ended", {"program": "sh", "code": "7"})]  # fmt: skip
    began, ended = record(tmp_path)
    assert (began["event"], began["program"], began["terminal"]) == ("started", "sh", True)
    assert (ended["event"], ended["program"], ended["code"]) == ("ended", "sh", 7)
    assert "s3cr3t" not in (tmp_path / RECORD).read_text()
    assert (tmp_path / RECORD).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("size", "last"), [(None, signal.SIGTERM), ([24, 80], signal.SIGHUP)], ids=["pipes", "tty"])
async def test_a_client_that_goes_ends_its_command(tmp_path: Path, size: object, last: int) -> None:
    control, sandbox = Control(), Holding()
    async with control.talking(ignored), control.serving(tmp_path):
        control.sealed("", sandbox)
        client = Client(tmp_path)
        client.ask(size=size)
        await client.hear()
        client.close()
        async with asyncio.timeout(30):
            assert await sandbox.execution.signalled.get() == last
            await sandbox.execution.ended

    assert sandbox.execution.told == [f"signal {last}", "close"]
    assert record(tmp_path)[-1]["code"] == 128 + last


async def test_what_does_not_end_for_its_gone_client_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LEFT_GRACE_S > 0
    monkeypatch.setattr("moat.runs.execution.LEFT_GRACE_S", 0.01)
    control, sandbox = Control(), Holding()
    sandbox.execution.dies_of = (signal.SIGKILL,)
    async with control.talking(ignored), control.serving(tmp_path):
        control.sealed("", sandbox)
        client = Client(tmp_path)
        client.ask()
        await client.hear()
        client.channel.send({"signal": "garbage"})
        async with asyncio.timeout(30):
            await sandbox.execution.ended
        client.close()

    assert sandbox.execution.told == ["signal 15", "signal 9", "close"]


async def test_a_refusal_is_told_in_words_and_nothing_is_recorded(tmp_path: Path) -> None:
    control, sandbox = Control(), Holding()
    async with control.talking(ignored), control.serving(tmp_path):
        early = Client(tmp_path)
        early.ask()
        answer = await early.hear()
        assert answer is not None
        assert answer["problem"] == "the run has not begun yet"
        early.close()
        sandbox.refusal = SandboxFailed("no", hint="never")
        control.sealed("", sandbox)
        client = Client(tmp_path)
        client.ask()
        assert await client.hear() == {"event": "failed", "problem": "no", "hint": "never", "code": 1}
        client.close()

    assert record(tmp_path) == []


async def test_a_command_whose_sandbox_is_lost_is_told_as_such_and_the_run_is_not_touched(tmp_path: Path) -> None:
    control, sandbox = Control(), Holding()
    async with control.talking(ignored), control.serving(tmp_path):
        control.sealed("", sandbox)
        client = Client(tmp_path)
        client.ask()
        await client.hear()
        sandbox.execution.ended.set_exception(SandboxFailed("gone", hint="look"))
        assert await client.hear() == {"event": "failed", "problem": "gone", "hint": "look", "code": 1}
        client.close()

    assert sandbox.execution.told == ["close"]
    assert record(tmp_path)[-1]["code"] is None


async def test_what_is_no_question_starts_nothing(tmp_path: Path) -> None:
    control, sandbox = Control(), Holding()
    async with control.talking(ignored), control.serving(tmp_path):
        control.sealed("", sandbox)
        odd: tuple[Message, ...] = ({"argv": []}, {"argv": 3}, {"size": [1]}, {"size": "x"})
        for words in odd:
            client = Client(tmp_path)
            client.ask(**words)
            assert await client.hear() is None, words
            client.close()
        bare = Client(tmp_path)
        bare.channel.send({"ask": "exec", "argv": ["true"], "size": None})
        assert await bare.hear() is None
        bare.close()

    assert sandbox.asked is None
    assert record(tmp_path) == []


async def test_a_record_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / RECORD).symlink_to(tmp_path / "elsewhere")
    control, sandbox = Control(), Holding()
    sandbox.execution.ended.set_result(0)
    async with control.talking(ignored), control.serving(tmp_path):
        control.sealed("", sandbox)
        client = Client(tmp_path)
        client.ask()
        assert await client.hear() == {"event": "started"}
        assert await client.hear() == {"event": "exited", "code": 0}
        client.close()

    assert not (tmp_path / "elsewhere").exists()
