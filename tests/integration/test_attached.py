"""A run that outlives its command line, seen from terminals: left, come back to, closed and killed."""

from __future__ import annotations

import json
import signal
import termios
from collections.abc import Iterator

import pytest
from support.installation import Installation, eventually, installation
from support.terminal import DEADLINE_S, Terminal, terminals_closed

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(120)]

LEAVE = "\x10\x11"


@pytest.fixture(scope="module", params=["bubblewrap", pytest.param("docker", marks=pytest.mark.docker)])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        yield made


@pytest.fixture
def terminals(moat: Installation) -> Iterator[list[Terminal]]:
    with terminals_closed() as opened:
        yield opened
    for run in json.loads(moat.ok("list", "--json")):
        if run["state"] in ("starting", "running"):
            moat.ok("stop", "-t", "0", run["name"])


def state(moat: Installation, name: str) -> object:
    return next(each["state"] for each in json.loads(moat.ok("list", "--json")) if each["name"] == name)


def a_shell(moat: Installation, terminals: list[Terminal], runtime: str, name: str) -> Terminal:
    words = ("run", "work", "--runtime", runtime, "--name", name, "--", "env", "PS1=$ ", "bash", "--norc", "-i")
    terminals.append(Terminal(moat, *words))
    terminals[-1].read_until("$ ")
    return terminals[-1]


def attached(moat: Installation, terminals: list[Terminal], name: str) -> Terminal:
    terminals.append(Terminal(moat, "attach", name))
    return terminals[-1]


def test_a_user_leaves_and_comes_back_to_the_same_shell(
    moat: Installation, terminals: list[Terminal], runtime: str
) -> None:
    name = f"back-{runtime}"
    first = a_shell(moat, terminals, runtime, name)
    first.type("here=before; echo mark''er\r")
    first.read_until("marker")

    first.type(LEAVE)

    first.read_until(f"moat attach {name}")
    assert first.process.wait(DEADLINE_S) == 0
    assert termios.tcgetattr(first.shell) == first.before
    assert state(moat, name) == "running"

    second = attached(moat, terminals, name)
    second.read_until("marker")  # what stood there
    second.type("echo still $here; stty size\r")
    assert "still before" in second.read_until("33 99")
    second.type("exit 8\r")
    second.read_until("0 requests")
    assert second.process.wait(DEADLINE_S) == 8
    assert termios.tcgetattr(second.shell) == second.before
    assert b"still before" in moat.run("logs", name).stdout


@pytest.mark.parametrize("end", [signal.SIGHUP, signal.SIGKILL])
def test_a_terminal_that_goes_does_not_end_the_run(
    moat: Installation, terminals: list[Terminal], runtime: str, end: signal.Signals
) -> None:
    name = f"stays-{runtime}-{end.name.lower()}"
    first = a_shell(moat, terminals, runtime, name)

    first.process.send_signal(end)

    first.process.wait(DEADLINE_S)
    second = attached(moat, terminals, name)
    second.read_until("$ ")
    second.type("echo al''ive; exit 0\r")
    second.read_until("alive")
    assert second.process.wait(DEADLINE_S) == 0


def test_two_terminals_see_the_same_run(moat: Installation, terminals: list[Terminal]) -> None:
    first = a_shell(moat, terminals, "bubblewrap", "shared")
    second = attached(moat, terminals, "shared")
    second.read_until("$ ")

    second.type("echo to ''both\r")

    first.read_until("to both")
    second.read_until("to both")
    first.type("exit 2\r")
    assert first.process.wait(DEADLINE_S) == 2
    assert second.process.wait(DEADLINE_S) == 2


@pytest.mark.docker
def test_ctrl_c_before_the_command_starts_leaves_nothing(moat: Installation, terminals: list[Terminal]) -> None:
    words = ("run", "work", "--runtime", "docker", "--name", "never", "--", "sleep", "600")
    terminal = Terminal(moat, *words)
    terminals.append(terminal)
    runs = moat.home / ".moat" / "runs"
    eventually("it is being launched", lambda: any((each / "control.sock").exists() for each in runs.glob("run_*")))

    terminal.type("\x03")

    assert terminal.process.wait(DEADLINE_S) == 128 + signal.SIGINT
    eventually("it is over", lambda: state(moat, "never") == "stopped")
