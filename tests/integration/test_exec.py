"""`moat exec` in live runs: the same seal to the letter, streams, terminals, and ends of all kinds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.docker_place import is_there
from support.installation import USER, Installation, end, eventually, installation
from support.terminal import DEADLINE_S, Terminal

pytestmark = [pytest.mark.timeout(120)]
LIMITS = {"docker": "ulimits: {nofile: {soft: 300, hard: 400}}, pids: 200",
          "bubblewrap": "ulimits: {nofile: {soft: 300, hard: 400}}"}  # fmt: skip
NO_DOCKER = pytest.mark.skipif(not is_there(), reason="no container engine with the image")
PLACES = [
    pytest.param(("docker", ""), id="docker", marks=[pytest.mark.docker, NO_DOCKER]),
    pytest.param(("bubblewrap", ""), id="bubblewrap", marks=pytest.mark.bubblewrap),
]
AS_A_USER = pytest.param(("bubblewrap", USER), id="bubblewrap-as-a-user", marks=pytest.mark.bubblewrap)

# What the kernel says of a process's cage, its own number left out.
LOOK = """
import json, os, re, resource, sys
own = os.listdir("/proc/self/ns")
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
told = {name: status[name] for name in status
        if name.startswith(("Cap", "Secc", "Spec")) or name in ("NoNewPrivs", "Uid", "Gid", "Groups", "Umask")}
told |= {"ns " + name: os.readlink("/proc/self/ns/" + name) for name in own}
told |= {name: open("/proc/self/" + name).read() for name in ("mountinfo", "cgroup", "limits", "oom_score_adj")}
told |= {"env": dict(sorted(os.environ.items())), "cwd": os.getcwd(), "root": os.readlink("/proc/self/root")}
told |= {"descriptors": sorted(os.listdir("/proc/self/fd"))[:3], "threads": sorted(os.listdir("/proc/self/task"))[1:]}
told |= {"dumpable": os.stat("/proc/self/status").st_uid}
print(json.dumps(told))
sys.stdout.flush()
"""


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A runtime, and who uses it."""
    runtime, user = request.param
    return runtime, user


@pytest.fixture(scope="module")
def moat(place: tuple[str, str]) -> Iterator[Installation]:
    with installation(place[1], MOAT_RUNTIME=place[0]) as made:
        yield made


@pytest.fixture(scope="module")
def run(moat: Installation, place: tuple[str, str]) -> str:
    """A live run, whose command says what it is like and then sleeps."""
    moat.file("work/look.py", LOOK)
    moat.file("work/moat.yaml", f"container: {{{LIMITS[place[0]]}}}\n")
    script = "python3 look.py > look.json; touch ready; exec sleep 600"
    moat.ok("run", "-d", "--yes", "work", "--name", "box", "-e", "MINE=1", "--", "sh", "-c", script)
    eventually("the run works", (moat.home / "work" / "ready").exists)
    return "box"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        end(process)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def state(moat: Installation, name: str) -> object:
    return next(each["state"] for each in json.loads(moat.ok("list", "--json")) if each["name"] == name)


def without_open_files(limits: str) -> str:
    return "\n".join(line for line in limits.splitlines() if not line.startswith("Max open files"))


def running() -> str:
    """Return the command lines of this machine's processes."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("place", [*PLACES, AS_A_USER], indirect=True, scope="module")
def test_another_command_is_caged_exactly_as_the_runs_own(moat: Installation, run: str, place: tuple[str, str]) -> None:
    own = json.loads((moat.home / "work" / "look.json").read_text())
    assert "300                  400" in own["limits"]

    other = json.loads(moat.ok("exec", run, "--", "sh", "-c", "python3 look.py; true"))  # sh, as there

    if place[0] == "docker":
        # runc before 1.1.13 sometimes gives such a command its own limit of open files (opencontainers/runc#4195)
        own["limits"], other["limits"] = (without_open_files(each["limits"]) for each in (own, other))
    assert other["limits"].splitlines() == own["limits"].splitlines()
    assert other == own
    assert (own["CapEff"], own["CapBnd"], own["NoNewPrivs"], own["Seccomp"]) == ("0" * 16, "0" * 16, "1", "2")
    assert own["env"]["MINE"] == "1"


def test_a_terminal_loosens_nothing(moat: Installation, run: str, terminals: list[Terminal]) -> None:
    own = json.loads((moat.home / "work" / "look.json").read_text())
    own["limits"] = without_open_files(own["limits"])
    terminals.append(Terminal(moat, "exec", run, "--", "sh", "-c", "python3 look.py > look-tty.json; echo lo''oked"))

    terminals[-1].read_until("looked")

    other = json.loads((moat.home / "work" / "look-tty.json").read_text())
    other["limits"] = without_open_files(other["limits"])
    assert other == own | {"env": own["env"] | {"TERM": other["env"]["TERM"]}}


def test_streams_stay_apart_and_the_code_is_the_commands(moat: Installation, run: str) -> None:
    done = moat.run("exec", run, "--", "sh", "-c", "echo out; echo err >&2; cat; exit 7", input=b"in \xff\0 put")

    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\nin \xff\0 put", b"err\n")


def test_output_comes_as_it_is_written(moat: Installation, run: str, started: list[subprocess.Popen[bytes]]) -> None:
    process = moat.start("exec", run, "--", "sh", "-c", "echo one; read line; echo $line", stdin=subprocess.PIPE)
    started.append(process)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"one\n"

    process.stdin.write(b"two\n")
    process.stdin.flush()

    assert process.stdout.readline() == b"two\n"
    assert process.wait(DEADLINE_S) == 0


def test_a_command_that_is_not_there_is_an_error_and_no_output(moat: Installation, run: str) -> None:
    absent, unusable = (moat.run("exec", run, "--", name) for name in ("no-such-command", "/etc/passwd"))

    assert (absent.returncode, absent.stdout) == (127, b"")
    assert (unusable.returncode, unusable.stdout) == (126, b"")
    assert b"no-such-command" in absent.stderr


def test_a_reader_that_leaves_ends_the_writer(moat: Installation, run: str) -> None:
    reader, writer = os.pipe()
    process = moat.start("exec", run, "--", "yes", "for-nobody", stdout=writer)
    os.close(writer)
    assert os.read(reader, 10) == b"for-nobody"
    os.close(reader)

    assert process.wait(DEADLINE_S) == 128 + signal.SIGPIPE
    end(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_the_commands(
    moat: Installation, run: str, started: list[subprocess.Popen[bytes]], number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got it; exit 42' {name}; echo up; while :; do sleep 0.1; done"
    process = moat.start("exec", run, "--", "sh", "-c", script)
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"

    process.send_signal(number)

    assert process.stdout.readline() == b"got it\n"
    assert process.wait(DEADLINE_S) == 42
    assert state(moat, run) == "running"


def test_a_second_interrupt_kills(moat: Installation, run: str, started: list[subprocess.Popen[bytes]]) -> None:
    script = "trap 'echo no' INT; echo up; while :; do sleep 0.1; done"
    process = moat.start("exec", run, "--", "sh", "-c", script)
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"no\n"

    process.send_signal(signal.SIGINT)

    assert process.wait(DEADLINE_S) == 137


def test_a_killed_command_line_takes_its_command_with_it(
    moat: Installation, run: str, started: list[subprocess.Popen[bytes]]
) -> None:
    process = moat.start("exec", run, "--", "sh", "-c", "echo up; sleep 5544 & wait")
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    assert "sleep 5544" in running()

    process.kill()

    eventually("nothing of it is left", lambda: "sleep 5544" not in running())
    assert state(moat, run) == "running"


def test_a_terminal_is_lent_sized_and_put_back(moat: Installation, run: str, terminals: list[Terminal]) -> None:
    terminal = Terminal(moat, "exec", "-t", run, "--", "sh")
    terminals.append(terminal)
    terminal.type("test -t 0 && test -t 1 && test -t 2 && stty size\r")
    terminal.read_until("33 99")

    termios.tcsetwinsize(terminal.user, (44, 111))
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.type('until [ "$(stty size)" = "44 111" ]; do sleep 0.05; done; echo re""sized\r')
    terminal.read_until("resized")

    terminal.type('trap "echo inter""rupted; exit 6" INT; echo wai""ting; while :; do sleep 0.1; done\r')
    terminal.read_until("waiting")
    terminal.type("\x03")
    terminal.read_until("interrupted")
    assert terminal.process.wait(DEADLINE_S) == 6
    assert termios.tcgetattr(terminal.shell) == terminal.before


def test_a_closed_window_ends_its_command_and_not_the_run(
    moat: Installation, run: str, terminals: list[Terminal]
) -> None:
    terminal = Terminal(moat, "exec", run, "--", "sh", "-c", "echo u''p; sleep 6655")
    terminals.append(terminal)
    terminal.read_until("up")

    terminal.process.send_signal(signal.SIGKILL)

    eventually("nothing of it is left", lambda: "sleep 6655" not in running())
    assert state(moat, run) == "running"


def test_output_to_a_file_from_a_terminal_stays_plain(moat: Installation, run: str, terminals: list[Terminal]) -> None:
    terminal = Terminal(
        moat, "exec", run, "--", "sh", "-c", "echo plain; test -t 1 || echo no terminal", redirect="> out"
    )
    terminals.append(terminal)

    assert terminal.process.wait(DEADLINE_S) == 0
    assert (moat.home / "out").read_bytes() == b"plain\nno terminal\n"


def test_it_is_written_down_without_arguments(moat: Installation, run: str) -> None:
    moat.ok("exec", run, "--", "sh", "-c", "exit 0 # s3cr3t-argument")

    lines = [json.loads(line) for path in _records(moat) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines[-2:]] == ["started", "ended"]
    assert (lines[-1]["program"], lines[-1]["code"]) == ("sh", 0)
    audited = json.loads(moat.ok("audit", run, "--json"))
    assert [(each["kind"], each["facts"].get("program")) for each in audited[-2:]] == [
        ("exec", "sh"), ("exec-ended", "sh")]  # fmt: skip


@pytest.mark.parametrize("holder", ["a supervisor", "a command line"])
def test_it_ends_with_the_run(moat: Installation, started: list[subprocess.Popen[bytes]], holder: str) -> None:
    moat.file("other/.made", "")
    name = f"ends-{holder.split()[1]}"
    words = ("other", "--name", name, "--", "sh", "-c", "echo up; exec sleep 600")
    if holder == "a supervisor":
        moat.ok("run", "-d", *words)
    else:
        started.append(moat.start("run", *words))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == b"up\n"
    process = moat.start("exec", name, "--", "sh", "-c", "echo there; sleep 600")
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"

    moat.ok("stop", "-t", "0", name)

    assert process.wait(DEADLINE_S) == 137
    late = moat.run("exec", name, "--", "true")
    assert late.returncode == 2


def test_a_killed_holder_is_told(moat: Installation, started: list[subprocess.Popen[bytes]]) -> None:
    moat.file("third/.made", "")
    holder = moat.start("run", "third", "--name", "held", "--", "sh", "-c", "echo up; sleep 600")
    started.append(holder)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"up\n"
    process = moat.start("exec", "held", "--", "sh", "-c", "echo there; sleep 7766")
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"

    holder.kill()

    assert process.wait(DEADLINE_S) == 1
    eventually("the run is over", lambda: state(moat, "held") not in ("starting", "running"), DEADLINE_S)
    eventually("its command is gone", lambda: "sleep 7766" not in running())


def _records(moat: Installation) -> list[Path]:
    return sorted((moat.home / ".moat" / "runs").glob("*/executions.jsonl"))
