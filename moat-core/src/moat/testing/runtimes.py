"""What every runtime promises, as a pytest class to inherit from. Each test starts real runs, with a real daemon.

    class TestDocker(RuntimeContract):
        runtime = Docker()
        image = "debian:bookworm-slim"
        added = frozenset({"HOSTNAME"})      # variables that the runtime itself adds

        def remains(self, run_id: str) -> list[str]:
            ...                              # what it still has of a run: containers, machines

The runtime must be installed as a plugin, since `moat run --runtime NAME` finds it there. Needed inside: bash, env,
cat, stty, sleep, grep. A runtime that is not sealed is held to saying so, and not to what only a sandbox can do.
"""

# ruff: noqa: S101 # a pytest class: asserting is what it is for

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from moat.api.runs import RunSpec
from moat.api.runtimes import Runtime, Sandbox, Stdio
from moat.paths import Home
from moat.testing.place import LIMIT_S, Place, eventually
from moat.testing.screen import Screen

_LIVE = "echo up; while :; do sleep 0.1; done"


class RuntimeContract:
    """Inherit, set the attributes, done."""

    runtime: ClassVar[Runtime]
    image: ClassVar[str] = ""
    added: ClassVar[frozenset[str]] = frozenset()
    place: ClassVar[Place]

    @classmethod
    def setup_class(cls) -> None:
        """Make the place that the tests of one runtime share."""
        cls.place = Place()

    @classmethod
    def teardown_class(cls) -> None:
        """Take it away."""
        cls.place.close()

    def remains(self, run_id: str) -> list[str]:
        """Return what the runtime still has of a run, outside of MOAT_HOME. Default: nothing that can be told."""
        del run_id
        return []

    def words(self, *command: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the words of a `moat run` of a command."""
        image = ("--image", self.image) if self.image else ()
        return ("run", str(self.place.workspace), "--runtime", self.runtime.name, *image, *options, "--", *command)

    def ran(self, script: str, *options: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a shell's script to its end."""
        return self.place.run(*self.words("sh", "-c", script, options=options), input=input)

    @contextlib.contextmanager
    def live(self, name: str, script: str = _LIVE) -> Iterator[subprocess.Popen[bytes]]:
        """Start a run whose script first says `up`, and wait for that."""
        process = self.place.start(*self.words("sh", "-c", script, options=("--name", name)), stdin=subprocess.PIPE)
        try:
            assert _line(process) == b"up\n"
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            process.communicate(timeout=LIMIT_S)

    def nothing_is_left(self, run_id: str) -> None:
        """Fail unless everything of a run goes away."""
        eventually("the runtime has nothing left of it", lambda: not self.remains(run_id))
        folders = [self.place.home / "doors" / run_id, self.place.home / "inside" / run_id]
        sockets = [self.place.home / "runs" / run_id / "control.sock"]
        eventually("its folders are gone", lambda: not any(path.exists() for path in (*folders, *sockets)))

    def test_the_exit_code_is_the_commands(self) -> None:
        assert self.ran("exit 0").returncode == 0
        assert self.ran("exit 7").returncode == 7
        assert self.ran("kill -TERM $$").returncode == 128 + signal.SIGTERM

    def test_a_command_that_is_not_there_is_no_success_and_no_output(self) -> None:
        done = self.place.run(*self.words("no-such-command-anywhere"))

        assert done.returncode != 0
        assert done.stdout == b""
        assert b"no-such-command-anywhere" in done.stderr

    def test_the_environment_is_the_plans_and_nothing_else(self) -> None:
        options = ("-e", "MINE=its value", "--name", "planned")
        plan = json.loads(self.place.ok(*self.words("env", "-0", options=(*options, "--dry-run", "--json"))))
        stray = {"STRAY": "1", "LD_PRELOAD_OF_MINE": "1"}

        said = self.place.ok(*self.words("env", "-0", options=options), env=stray)

        inside = dict(text.split("=", 1) for text in said.decode().split("\0") if text)
        planned = {name: told["value"] for name, told in plan["variables"].items()}
        assert sorted(set(inside) - self.added) == sorted(planned)
        assert inside["MINE"] == "its value"
        if self.runtime.sealed:  # elsewhere, places and the proxy are named as they are outside
            assert {name: inside[name] for name in planned if name != "MINE"} == {
                name: value for name, value in planned.items() if name != "MINE"
            }

    def test_input_is_piped_to_its_end_byte_by_byte(self) -> None:
        data = bytes(range(256)) * 4096

        assert self.place.ok(*self.words("cat"), input=data) == data

    def test_streams_are_apart_and_come_as_they_are_written(self) -> None:
        with self.live("streams", "echo up; read line; echo one; echo two >&2; read line; echo end") as process:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert _line(process) == b"one\n"
            process.stdin.write(b"\n")
            process.stdin.flush()
            out, err = process.communicate(timeout=LIMIT_S)

        assert out == b"end\n"
        assert b"two\n" in err
        assert b"one" not in err

    def test_a_terminal_has_its_size_takes_another_and_is_put_back(self) -> None:
        sized = 'until [ "$(stty size)" = "33 99" ]; do sleep 0.05; done; stty size; exec sh'  # an engine may be late
        command = self.place.command(*self.words("sh", "-c", sized))
        screen = Screen(command, self.place.environment())
        try:
            screen.read_until("33 99")
            screen.resize(44, 111)
            screen.type('until [ "$(stty size)" = "44 111" ]; do sleep 0.05; done; echo re""sized\r')
            screen.read_until("resized")
            screen.type('trap "echo inter""rupted; exit 9" INT; echo wai""ting; while :; do sleep 0.1; done\r')
            screen.read_until("waiting")
            screen.type("\x03")
            screen.read_until("interrupted")
            assert screen.process.wait(LIMIT_S) == 9
            assert screen.is_as_before
        finally:
            screen.close()

    def test_the_command_works_in_the_workspace_as_the_invoker(self) -> None:
        (self.place.workspace / "given").write_text("from outside")

        assert self.ran("cat given && echo made > made").stdout == b"from outside"
        made = (self.place.workspace / "made").stat()
        assert (made.st_uid, made.st_gid) == (os.geteuid(), os.getegid())

    def test_mounts_are_where_and_as_they_were_asked_for(self) -> None:
        if not self.runtime.sealed:
            return  # nothing is mounted there: test_it_says_whether_it_is_sealed
        shown, shared = (self._folder(name) for name in ("shown", "shared"))
        options = ("--mount", f"{shown}:/data/shown:ro", "--mount", f"{shared}:/data/shared")

        done = self.ran("cat /data/shown/in; echo x > /data/shown/new; echo y > /data/shared/new; :", *options)

        assert done.stdout == b"shown"
        assert not (shown / "new").exists()
        assert (shared / "new").read_text() == "y\n"

    def test_files_of_ours_are_there_and_read_only(self) -> None:
        if not self.runtime.sealed:
            return
        plan = json.loads(self.place.ok(*self.words("true", options=("--dry-run", "--json"))))
        assert plan["files"]

        for path in plan["files"]:
            done = self.ran(f"test -s {path} && ! (echo x >> {path}) 2>/dev/null && ! rm -f {path} 2>/dev/null")
            assert done.returncode == 0, path

    def test_a_signal_is_forwarded_and_the_command_decides(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            name = number.name.removeprefix("SIG")
            with self.live(f"signal-{name.lower()}", f"trap 'echo got it; exit 42' {name}; {_LIVE}") as process:
                process.send_signal(number)
                assert _line(process) == b"got it\n"
                assert process.wait(LIMIT_S) == 42

    def test_what_ends_leaves_nothing(self) -> None:
        self.ran("sleep 5511 & exit 0", "--name", "leaver")

        self.nothing_is_left(str(self.place.runs()["leaver"]["run_id"]))
        eventually("what it left behind is gone", lambda: "sleep 5511" not in _processes())

    def test_a_killed_launcher_leaves_nothing(self) -> None:
        with self.live("killed", "sleep 5522 & echo up; wait") as process:
            run_id = str(self.place.runs()["killed"]["run_id"])
            if self.runtime.sealed:
                assert "sleep 5522" in _processes()

            process.kill()

            if self.runtime.sealed:  # elsewhere nothing watches over the command: that is what the warning means
                eventually("its command is gone", lambda: "sleep 5522" not in _processes())
                eventually("it is written down as over", lambda: self.place.is_over("killed"))
                self.nothing_is_left(run_id)
            else:
                _kill_processes("sleep 5522")

    def test_a_sandbox_can_be_closed_again(self) -> None:
        sandboxes: list[Sandbox] = []

        assert self._performed(sandboxes) == 3
        assert len(sandboxes) == 1

    def test_two_runs_live_beside_each_other(self) -> None:
        with self.live("left") as left, self.live("right") as right:
            assert (left.poll(), right.poll()) == (None, None)
            if self.runtime.sealed:
                assert b"right" not in self.ran("ls /proc/*/cwd/ 2>/dev/null; cat /proc/*/cmdline").stdout

    def test_another_command_is_sealed_alike_or_refused(self) -> None:
        seal = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; exit 5"
        with self.live("host-of-another", f"({seal}) > seal; {_LIVE}"):
            done = self.place.run("exec", "host-of-another", "--", "sh", "-c", seal)

            if done.returncode == 5:
                assert done.stdout == (self.place.workspace / "seal").read_bytes()
            else:
                assert (done.returncode, done.stdout) == (1, b"")
                assert b"cannot start another command" in done.stderr
            assert not self.place.is_over("host-of-another")

    def test_it_says_whether_it_is_sealed(self) -> None:
        done = self.ran("true", "--name", "telling")

        assert (b"sealed \xe2\x9c\x93" in done.stderr) == self.runtime.sealed
        assert (b"NOT sealed" in done.stderr) != self.runtime.sealed
        if not self.runtime.sealed:
            assert b"does not isolate" in done.stderr
            assert "no isolation" in asyncio.run(self.runtime.readiness(self.image)).detail

    def test_what_is_sealed_reaches_no_listener_of_the_host(self) -> None:
        if not self.runtime.sealed:
            return
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            listener.settimeout(0)

            done = self.ran(f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' && exit 0; exit 44")

            assert done.returncode == 44
            with contextlib.suppress(BlockingIOError):
                raise AssertionError(f"it was connected to: {listener.accept()}")

    def _folder(self, name: str) -> Path:
        folder = self.place.root / name
        folder.mkdir(exist_ok=True)
        (folder / "in").write_text(name)
        return folder

    def _performed(self, sandboxes: list[Sandbox]) -> int:
        """Perform a run here and close its sandbox twice more; return its exit code."""
        from moat.runs.attach import Attachment
        from moat.runs.launch import Launch
        from moat.runs.prepare import prepare

        home, before = Home(self.place.home), dict(os.environ)
        plan = json.loads(self.place.ok(*self.words("true", options=("--dry-run", "--json"))))
        spec = RunSpec(
            self.place.workspace, ("sh", "-c", "exit 3"), runtime=self.runtime.name, image=plan["image"] or ""
        )
        nothing = os.open(os.devnull, os.O_RDWR)
        os.environ.update(self.place.environment())
        try:
            made = prepare(spec, home, [self.runtime], self.place.environment())

            async def performed() -> int:
                launch = Launch(made.plan, made.runtime, made.client, home, sandboxes.append)
                outcome = await launch.perform(Attachment(Stdio(nothing, nothing, nothing)))
                for sandbox in sandboxes * 2:
                    await sandbox.close()
                return outcome.exit_code

            return asyncio.run(performed())
        finally:
            os.environ.clear()
            os.environ.update(before)
            os.close(nothing)


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def _processes() -> str:
    """Return the command lines of all processes of this machine that can be seen, one a line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(found)


def _kill_processes(command: str) -> None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip() == command:
                os.kill(int(path.parent.name), signal.SIGKILL)
