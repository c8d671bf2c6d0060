"""How sealed runs live and die: signals, terminals, killed gates, launchers and daemons; nothing is ever left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from moat.api.errors import SandboxFailed
from moat.api.runtimes import Stdio
from moat.runtimes.bubblewrap import Bubblewrap
from moat.runtimes.bubblewrap_launch import BubblewrapSandbox
from support import sealed
from support.sealed import StandIn, a_spec, stand_in

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]
PATIENCE_S = 30.0


@pytest.fixture(params=["outside", "inside"], ids=["gate outside", "gate inside"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MOAT_BUBBLEWRAP_GATE", request.param)
    return str(request.param)


class Running:
    """A command in a sealed run whose output can be read while it lives."""

    def __init__(self, sandbox: BubblewrapSandbox, output: asyncio.StreamReader, daemon: StandIn) -> None:
        self.sandbox = sandbox
        self.output = output
        self.daemon = daemon

    async def line(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            return (await self.output.readline()).decode().strip()

    async def rest(self) -> bytes:
        """Read to the end of output: everybody who held it is gone."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.output.read()


@contextlib.asynccontextmanager
async def running(folder: Path, argv: Sequence[str], daemon: StandIn) -> AsyncIterator[Running]:
    reader, writer = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    try:
        launched = await Bubblewrap().launch(
            a_spec(argv, workspace), daemon.ticket, Stdio(nothing, writer, nothing), _nothing
        )
    finally:
        os.close(writer)
        os.close(nothing)
    assert isinstance(launched, BubblewrapSandbox)
    output = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(reader, "rb")
    )
    try:
        yield Running(launched, output, daemon)
    finally:
        await launched.close()
        transport.close()


async def _nothing(container_id: str) -> None:
    del container_id


LIVE = ("sh", "-c", "echo here; sleep 600 & wait")


async def test_signal_reaches_the_command_and_its_children(tmp_path: Path, place: str) -> None:
    command = ("sh", "-c", "trap 'echo got it; exit 9' INT; echo here; sleep 600 & wait")
    async with stand_in(tmp_path / "home") as daemon, running(tmp_path, command, daemon) as run:
        assert await run.line() == "here"

        await run.sandbox.signal(signal.SIGINT)

        assert await run.line() == "got it"
        assert await run.sandbox.wait() == 9
        assert await run.rest() == b""


async def test_killed_gate_takes_the_command_with_it(tmp_path: Path, place: str) -> None:
    async with stand_in(tmp_path / "home") as daemon, running(tmp_path, LIVE, daemon) as run:
        assert await run.line() == "here"

        os.kill(_gate(run.sandbox.pid), signal.SIGKILL)

        assert await run.rest() == b""
        async with asyncio.timeout(PATIENCE_S):
            await daemon.ended.wait()


async def test_end_of_the_launcher_kills_the_command(tmp_path: Path, place: str) -> None:
    async with stand_in(tmp_path / "home") as daemon, running(tmp_path, LIVE, daemon) as run:
        assert await run.line() == "here"

        await run.sandbox._link.close()

        assert await run.rest() == b""
        assert daemon.exit_codes in ([], [None])


async def test_killed_launcher_takes_the_command_with_it(tmp_path: Path, place: str) -> None:
    """The launcher, and with it the stand-in daemon, is a process of its own, killed without warning."""
    (tmp_path / "workspace").mkdir()
    mark = f"{600}.{os.getpid()}{len(place)}"
    command = ("sh", "-c", f"touch here; exec sleep {mark}")
    request = {"argv": command, "workspace": str(tmp_path / "workspace"), "home": str(tmp_path / "home"), "env": {}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, sealed.__file__),
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({**request, "stdin": ""}).encode())
    process.stdin.close()
    await _becomes(lambda: (tmp_path / "workspace" / "here").exists() and _runs(mark))

    process.kill()
    await process.wait()

    await _becomes(lambda: not _runs(mark))


async def test_command_that_ignores_terminate_is_killed(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("sh", "-c", "trap '' TERM; echo here; while :; do sleep 600; done")
    async with stand_in(tmp_path / "home") as daemon, running(tmp_path, command, daemon) as run:
        assert await run.line() == "here"

        await run.sandbox.close()

        assert await run.rest() == b""


async def test_background_children_end_with_the_command(tmp_path: Path, place: str) -> None:
    command = ("sh", "-c", "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 600; done' & echo here; exit 3")
    async with stand_in(tmp_path / "home") as daemon, running(tmp_path, command, daemon) as run:
        assert await run.sandbox.wait() == 3
        await run.sandbox.close()

        assert await run.rest() == b"here\n"


async def test_daemon_learns_the_exit_code(tmp_path: Path, place: str) -> None:
    async with stand_in(tmp_path / "home") as daemon, running(tmp_path, ("sh", "-c", "exit 5"), daemon) as run:
        assert await run.sandbox.wait() == 5
        async with asyncio.timeout(PATIENCE_S):
            await daemon.ended.wait()

    assert daemon.exit_codes == [5]


async def test_run_survives_its_daemon_and_opens_to_the_successor(tmp_path: Path, place: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with stand_in(tmp_path / "home") as first:
            run = await stack.enter_async_context(running(tmp_path, LIVE, first))
            assert await run.line() == "here"
            cookie = first.doors[0].cookie
            first.doors[0].close()

        async with stand_in(tmp_path / "home") as second:
            async with asyncio.timeout(PATIENCE_S):
                await second.opened.wait()
            assert second.doors[0].cookie == cookie
            await run.sandbox.signal(signal.SIGTERM)
            assert await run.sandbox.wait() == 128 + signal.SIGTERM


async def test_refused_successor_stops_the_run(tmp_path: Path, place: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with stand_in(tmp_path / "home") as first:
            run = await stack.enter_async_context(running(tmp_path, LIVE, first))
            assert await run.line() == "here"
            cookie = first.doors[0].cookie
            first.doors[0].close()

        async with stand_in(tmp_path / "home", taken_cookies=[cookie]):
            with pytest.raises(SandboxFailed, match="another run's network namespace"):
                await run.sandbox.wait()
            assert await run.rest() == b""


async def test_connection_into_the_run(tmp_path: Path, place: str) -> None:
    program = """
import socket
server = socket.create_server(("127.0.0.1", 3000))
print("here", flush=True)
server.accept()[0].sendall(b"hello")
"""
    command = ("/usr/bin/python3", "-c", program)
    async with stand_in(tmp_path / "home") as daemon, running(tmp_path, command, daemon) as run:
        assert await run.line() == "here"

        with pytest.raises(ConnectionError, match="refused"):
            await daemon.doors[0].connect(3001)
        with await daemon.doors[0].connect(3000) as connection:
            assert await asyncio.to_thread(connection.recv, 100) == b"hello"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    yield master, slave
    for number in (master, slave):
        with contextlib.suppress(OSError):
            os.close(number)


async def test_terminal_of_its_own_controls_the_command(tmp_path: Path, place: str, terminal: tuple[int, int]) -> None:
    master, slave = terminal
    (tmp_path / "workspace").mkdir()
    script = "trap 'stty size; exit 4' INT; : > /dev/tty && echo ready; while :; do sleep 0.05; done"
    spec = a_spec(("sh", "-c", script), tmp_path / "workspace", terminal=(24, 80))
    async with stand_in(tmp_path / "home") as daemon:
        sandbox = await Bubblewrap().launch(spec, daemon.ticket, Stdio(slave, slave, slave), _nothing)
        try:
            said = await _until(master, b"ready")
            await sandbox.resize(50, 132)
            await asyncio.to_thread(os.write, master, b"\x03")
            said += await _until(master, b"50 132")

            assert await sandbox.wait() == 4
        finally:
            await sandbox.close()


async def _until(master: int, text: bytes) -> bytes:
    said = b""
    async with asyncio.timeout(PATIENCE_S):
        while text not in said:
            said += await asyncio.to_thread(os.read, master, 1024)
    return said


async def test_unreachable_door_is_told_apart(tmp_path: Path, place: str) -> None:
    async with stand_in(tmp_path / "home") as daemon:
        (daemon.ticket.folder / "door.sock").unlink()

        with pytest.raises(SandboxFailed, match="cannot reach the daemon"):
            async with running(tmp_path, LIVE, daemon):
                pass


async def test_silent_proxy_refuses_the_run(tmp_path: Path, place: str) -> None:
    async with stand_in(tmp_path / "home", answer="something else") as daemon:
        with pytest.raises(SandboxFailed, match="the proxy did not answer at the run's own door"):
            async with running(tmp_path, LIVE, daemon):
                pass


async def test_command_that_does_not_exist_is_an_exit_code(tmp_path: Path, place: str) -> None:
    async with stand_in(tmp_path / "home") as daemon, running(tmp_path, ("no-such-command",), daemon) as run:
        assert await run.sandbox.wait() == 127


async def _becomes(claim: Callable[[], bool]) -> None:
    """Wait for something that other processes do."""
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - what changes is another process
            await asyncio.sleep(0.02)


def _runs(argument: str) -> bool:
    """Whether any process has this among its arguments."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if argument.encode() in path.read_bytes().split(b"\0"):
                return True
    return False


def _gate(pid: int) -> int:
    """Return the process that is the gate: the child itself, or the one in the innermost namespace (gate inside)."""
    found = pid
    while b"--args" in (arguments := Path(f"/proc/{found}/cmdline").read_bytes()) or b"gate.py" not in arguments:
        found = int(Path(f"/proc/{found}/task/{found}/children").read_text().split()[0])
    return found
