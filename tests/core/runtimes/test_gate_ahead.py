"""A gate ahead of its run, with real processes and descriptors, and a gate that only says what it got."""

from __future__ import annotations

import array
import ast
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from moat.runtimes import gate_ahead

WANTED = (180, 181)
PROGRAM = f"""
import os, sys
sys.path.insert(0, sys.argv.pop(1))
import gate_ahead

def enter_namespace():
    if os.path.exists("no-namespaces"):
        raise OSError(1, "no new network namespace can be made")

def gate(rest):
    first = os.read(0, 6)
    try:
        told = rest()
    except OSError as failure:
        os.write(1, repr([first, str(failure)]).encode())
        return 8
    os.write(1, repr([sys.argv[1:], first, told, *(os.read(number, 9) for number in {WANTED})]).encode())
    return 7

sys.exit(gate_ahead.main(enter_namespace, gate))
"""


class Ahead:
    """One such process. said: its verdict."""

    def __init__(self, folder: Path, *trial: str) -> None:
        self.sock, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-I", "-S", "-c", PROGRAM, str(Path(gate_ahead.__file__).parent), *trial]
            self.process = subprocess.Popen(argv, stdin=theirs.fileno(), stdout=theirs.fileno(), cwd=folder)
        self.sock.settimeout(30)
        self.said = self.sock.recv(4096)

    def give(self, *texts: bytes) -> None:
        self.sock.sendall(b"door!\n")
        if not texts:
            return
        numbers = []
        for text in texts:
            reader, writer = os.pipe()
            os.write(writer, text)
            os.close(writer)
            numbers.append(reader)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))]
        self.sock.sendmsg([bytes([len(texts)])], rights)
        line = json.dumps({"argv": ["x" * 40_000]}).encode()
        self.sock.sendall(struct.pack(f"={len(texts)}iI", *WANTED[: len(texts)], len(line)) + line)
        for number in numbers:
            os.close(number)

    def end(self) -> tuple[int, bytes]:
        """Return the exit code, and what was said last."""
        self.sock.shutdown(socket.SHUT_WR)
        said = b""
        while part := self.sock.recv(4096):
            said += part
        self.sock.close()
        return self.process.wait(30), said


def test_a_trial_that_succeeds_is_told_and_descriptors_come_at_their_numbers(tmp_path: Path) -> None:
    ahead = Ahead(tmp_path, "true")
    ahead.give(b"one", b"two")

    assert ahead.said == b'""\n'
    code, said = ahead.end()
    assert code == 7
    assert ast.literal_eval(said.decode()) == [[], b"door!\n", {"argv": ["x" * 40_000]}, b"one", b"two"]


def test_a_launcher_that_goes_before_it_has_told_the_command_is_noticed(tmp_path: Path) -> None:
    ahead = Ahead(tmp_path)
    ahead.give()

    assert ahead.end() == (8, b"[b'door!\\n', '[Errno 0] the launcher is gone']")


def test_without_a_run_it_ends(tmp_path: Path) -> None:
    ahead = Ahead(tmp_path)

    assert ahead.said == b'""\n'
    assert ahead.end() == (1, b"")


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (("sh", "-c", "echo first; echo no >&2; exit 3"), b'"no"\n'),
        (("sh", "-c", "exit 3"), b'"exit code 3"\n'),
        (("/nowhere/bwrap",), b"No such file"),
    ],
)
def test_a_trial_that_fails_is_told_and_no_run_is_waited_for(
    tmp_path: Path, trial: tuple[str, ...], said: bytes
) -> None:
    ahead = Ahead(tmp_path, *trial)

    assert said in ahead.said
    assert ahead.end() == (1, b"")


def test_a_namespace_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "no-namespaces").touch()
    ahead = Ahead(tmp_path, "true")

    assert b"no new network namespace can be made" in ahead.said
    assert ahead.end() == (1, b"")


def test_a_trial_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_ahead, "TRIAL_S", 0.05)

    assert gate_ahead.tried(("sleep", "60")) == "it does not end"


def test_it_uses_the_standard_library_only() -> None:
    lines = Path(gate_ahead.__file__).read_text().splitlines()

    assert not any(line.split()[1].startswith("moat") for line in lines if line.startswith(("import ", "from ")))
