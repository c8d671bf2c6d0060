"""kill -9 of every process of moat in the middle of a busy run: nothing gets out, nothing has to be cleaned by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.installation import Installation, eventually
from support.world import World

from hostile.remains import Parts, parts_of, processes_in, remains, sockets_of
from hostile.sandbox import BUBBLEWRAP, PLACES, Live, Place, live_run

HOST = "www.example.com"


@pytest.fixture(params=PLACES[1:], ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    """The harder places: bubblewrap as an ordinary user, and docker. Root's bubblewrap has the long test below."""
    assert isinstance(request.param, Place)
    return request.param


@dataclass(frozen=True)
class Busy:
    """A run that talks through the proxy all the time, and tries to get past it."""

    made: Installation
    place: Place
    run: Live
    parts: Parts
    world: World

    def beat(self) -> dict[str, int]:
        """Return how often the command tried, was answered by the proxy, and got past it."""
        counts: dict[str, int] = json.loads((self.run.workspace / "beat").read_text())
        return counts

    def answers_more(self) -> None:
        """Wait until the proxy has answered a few times from now."""
        before = self.beat()["good"]
        eventually("the proxy answers", lambda: self.beat()["good"] > before + 2, 30)

    def leaves_nothing(self, deadline_s: float = 30) -> None:
        """Wait until nothing of the run is left, and check that it never got past the proxy."""
        eventually("the command is gone", lambda: not processes_in(self.parts.namespace), deadline_s)
        try:
            eventually("nothing is left", lambda: not remains(self.made, self.parts), deadline_s)
        except AssertionError:
            assert remains(self.made, self.parts) == []
        self.got_nothing_out()

    def got_nothing_out(self) -> None:
        """Check that what left the host left it through the proxy."""
        assert self.beat()["past"] == 0
        assert {packet.port for packet in self.world.internet.packets} <= {53, 80}

    def next_run_works(self) -> None:
        """Check that the next command works as if nothing had happened."""
        done = self.made.run("run", self.made.home / "other", "--runtime", self.place.runtime, "--", "echo", "works")

        assert (done.returncode, done.stdout) == (0, b"works\n"), done.stderr.decode()


@contextmanager
def a_busy_run(place: Place, world: World) -> Iterator[Busy]:
    """Start one, and let it talk."""
    world.internet.name(HOST, "93.184.216.34")
    world.internet.forget()
    with world.installation(place.user) as made:
        made.file("other/here", "")
        made.file("tmp/x", "").unlink()
        with live_run(made, place, env={"TMPDIR": str(made.home / "tmp")}) as run:
            made.file("work/beat", '{"good": 0, "past": 0}', 0o666)
            run.ask(do="busy", beat="/workspace/beat", host=HOST)
            busy = Busy(made, place, run, parts_of(made, place, run.process.pid), world)
            busy.answers_more()
            yield busy


def kill(pid: int) -> None:
    """Kill without a warning."""
    assert pid > 1
    os.kill(pid, signal.SIGKILL)


def ends(process: subprocess.Popen[bytes], deadline_s: float = 30) -> int:
    """Wait for a process's end and return its exit code."""
    return process.wait(deadline_s)


def test_when_the_cli_is_killed_the_command_ends(place: Place, world: World) -> None:
    with a_busy_run(place, world) as busy:
        daemon = busy.made.daemon_pid()

        kill(busy.run.process.pid)

        busy.leaves_nothing()
        busy.next_run_works()
        assert busy.made.daemon_pid() == daemon


def test_when_the_gate_is_killed_the_command_ends_and_the_cli_says_so(place: Place, world: World) -> None:
    with a_busy_run(place, world) as busy:
        kill(busy.parts.gate)

        assert ends(busy.run.process) == 1
        busy.leaves_nothing()
        busy.next_run_works()


def test_when_the_worker_is_killed_the_run_goes_on_with_another(place: Place, world: World) -> None:
    with a_busy_run(place, world) as busy:
        worker = _health(busy.made)["worker_pid"]

        kill(worker)

        busy.answers_more()
        assert _health(busy.made)["worker_pid"] != worker
        busy.got_nothing_out()
        busy.next_run_works()


def test_when_the_daemon_is_killed_the_run_is_cut_off_until_another_has_taken_it_over(
    place: Place, world: World
) -> None:
    with a_busy_run(place, world) as busy:
        health = _health(busy.made)
        busy.run.process.send_signal(signal.SIGSTOP)  # who would start the next daemon

        kill(health["pid"])

        eventually("the worker ends", lambda: not Path(f"/proc/{health['worker_pid']}").exists())
        before = busy.beat()
        busy.run.process.send_signal(signal.SIGCONT)
        eventually("the run goes on", lambda: busy.beat()["good"] > before["good"] + 1, 60)
        assert _health(busy.made)["pid"] != health["pid"]
        busy.next_run_works()
        busy.run.process.send_signal(signal.SIGTERM)
        ends(busy.run.process)
        busy.leaves_nothing()


@pytest.mark.bubblewrap
def test_a_run_whose_daemon_never_comes_back_ends_by_itself(world: World) -> None:
    with a_busy_run(BUBBLEWRAP, world) as busy:
        busy.run.process.send_signal(signal.SIGSTOP)  # who would start the next daemon
        kill(_health(busy.made)["pid"])

        eventually("the command is gone", lambda: not processes_in(busy.parts.namespace), 60)
        busy.run.process.send_signal(signal.SIGCONT)
        assert ends(busy.run.process, 60) == 1
        busy.got_nothing_out()
        busy.next_run_works()
        busy.leaves_nothing()


def test_when_cli_and_daemon_are_killed_at_once_the_command_ends(place: Place, world: World) -> None:
    with a_busy_run(place, world) as busy:
        kill(_health(busy.made)["pid"])
        kill(busy.run.process.pid)

        eventually("the command is gone", lambda: not processes_in(busy.parts.namespace), 30)
        busy.next_run_works()  # and the new daemon tidies up
        busy.leaves_nothing()


def test_a_daemon_lets_go_of_the_sockets_of_runs_that_are_over(place: Place, world: World) -> None:
    with world.installation(place.user) as made:
        made.file("other/here", "")
        again = ("run", made.home / "other", "--runtime", place.runtime, "--", "true")
        made.ok(*again)
        health = _health(made)
        before = [sockets_of(health["pid"]), sockets_of(health["worker_pid"])]

        made.ok(*again)
        made.ok(*again)

        eventually("the sockets are closed",
                   lambda: [sockets_of(health["pid"]), sockets_of(health["worker_pid"])] <= before)  # fmt: skip


def _health(made: Installation) -> dict[str, int]:
    status: dict[str, int] = json.loads(made.ok("proxy", "status", "--json"))
    return status
