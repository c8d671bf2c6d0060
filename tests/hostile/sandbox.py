"""Kinds of sandboxes, and a run in one that does what a test says, live, word by word."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.installation import USER, Installation

INSIDE = Path(__file__).with_name("inside")


@dataclass(frozen=True)
class Place:
    """A runtime, and who uses it. by_exec: what is tried there is started by `moat exec` in a run that does nothing."""

    runtime: str
    user: str = ""
    by_exec: bool = False

    def __str__(self) -> str:
        return f"{self.runtime} as {self.user or 'root'}{' by exec' if self.by_exec else ''}"


BUBBLEWRAP = Place("bubblewrap")
PLACES = (
    pytest.param(BUBBLEWRAP, marks=pytest.mark.bubblewrap),
    pytest.param(Place("bubblewrap", USER), marks=pytest.mark.bubblewrap),
    pytest.param(Place("docker"), marks=pytest.mark.docker),
)


@dataclass(frozen=True)
class Tunnel:
    """What came of a CONNECT: its answer, the TLS version or why there is none, and all bytes inside."""

    connect: str
    tls: str
    came: bytes


def statuses(came: bytes | str) -> list[int]:
    """Return the status codes of all answers in what came."""
    text = came.decode("latin-1") if isinstance(came, bytes) else came
    return [int(code) for code in re.findall(r"HTTP/1\.[01] ([0-9]{3})", text)]


def with_programs(made: Installation, name: str = "work") -> Path:
    """Make a workspace that holds the hostile programs; return it."""
    workspace: Path = made.home / name
    shutil.copytree(INSIDE, workspace / "hostile" / "inside", ignore=shutil.ignore_patterns("__pycache__"))
    made.file(f"{name}/here", "")
    return workspace


class Live:
    """A run whose command does what it is told (inside/puppet.py)."""

    def __init__(self, process: subprocess.Popen[bytes], workspace: Path) -> None:
        self.process = process
        self.workspace = workspace

    def ask(self, **words: object) -> Any:
        """Send one instruction and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the run ended: {self.process.communicate()[1]!r}")
        return json.loads(line)

    def exchange(self, *pieces: bytes, to: tuple[str, int] = ("127.0.0.1", 19080), close: bool = False) -> bytes:
        """Send pieces, each after an answer to the one before, to the proxy; return all that came back.

        close: say that nothing follows, and read to the end.
        """
        said = [base64.b64encode(piece).decode() for piece in pieces]
        return base64.b64decode(self.ask(do="exchange", to=to, pieces=said, close=close)["came"])

    def in_tunnel(
        self,
        connect: str,
        *pieces: bytes,
        server_name: str | None = "",
        to: tuple[str, int] | None = None,
        answers: int = 0,
    ) -> Tunnel:
        """CONNECT, make TLS with server_name ("": the host's), send pieces. to: connect there instead.

        answers: how many must come to a piece, however long they take; otherwise a pause ends what came.
        """
        said = [base64.b64encode(piece).decode() for piece in pieces]
        name = connect.rpartition(":")[0] if server_name == "" else server_name
        answer = self.ask(do="tunnel", connect=connect, name=name, pieces=said, to=to, answers=answers)
        return Tunnel(answer["connect"], answer["tls"], base64.b64decode(answer["came"]))


@contextlib.contextmanager
def live_run(
    made: Installation, place: Place, *flags: str, env: Mapping[str, str] | None = None, name: str = "work"
) -> Iterator[Live]:
    """Start a run and keep it until the test is done with it."""
    workspace = made.home / name
    if not workspace.exists():
        with_programs(made, name)
    command = ["python3", "-u", "/workspace/hostile/inside/puppet.py"]
    process = made.start("run", workspace, "--runtime", place.runtime, *flags, "--", *command,
                         stdin=subprocess.PIPE, env=env)  # fmt: skip
    run = Live(process, workspace)
    try:
        assert run.ask(do="hello") == {"hello": "there"}
        yield run
    finally:
        with contextlib.suppress(OSError, ValueError):
            if process.stdin is not None:
                process.stdin.close()
        process.stdin = None  # communicate() would flush it
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
