"""The first moments of a gate that is started ahead of its run: its namespace, a trial of bwrap in it, a wait.

    launcher ─▶ trial, in our arguments
             ◀─ one line of JSON: "" or why no sandbox can be made here
             ── the first line of gate.py, as for a gate without a command: the door is opened ──▶
             ── one byte: how many descriptors, which come with it ── their numbers ── the rest of that line ──▶
             ── everything else as gate.py says ──▶

Runs alone, beside gate.py, whose interpreter it is: standard library only, nothing of moat. Before the first line there
is no run, and a launcher that goes has changed its mind. What the command needs is found out while the door is opened.
"""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence

TYPE_CHECKING = False  # typing's own costs every run two milliseconds
if TYPE_CHECKING:
    from typing import Any

MOST_DESCRIPTORS = 250  # of one message, by the kernel's SCM_MAX_FD
TRIAL_S = 10.0  # milliseconds, unless the machine is thrashing


def tried(argv: Sequence[str]) -> str:
    """Run a command; return "" if it succeeds, else the last line that it said."""
    if not argv:
        return ""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            timeout=TRIAL_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "it does not end"
    except OSError as failure:
        return str(failure)
    if done.returncode == 0:
        return ""
    return done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {done.returncode}"


def take_rest() -> "dict[str, Any]":
    """Take the run's descriptors over, each at the number that the launcher has it at; return what comes with them.

    The numbers are far above those that we have ourselves. Raises OSError when the launcher is gone.
    """
    with socket.socket(fileno=os.dup(0)) as launcher:
        count, received, _, _ = socket.recv_fds(launcher, 1, MOST_DESCRIPTORS)
        if not count:
            raise OSError(0, "the launcher is gone")
        for number in received:
            (wanted,) = struct.unpack("=i", launcher.recv(4, socket.MSG_WAITALL))
            os.dup2(number, wanted, inheritable=False)
            os.close(number)
        (length,) = struct.unpack("=I", launcher.recv(4, socket.MSG_WAITALL))
        return dict(json.loads(launcher.recv(length, socket.MSG_WAITALL)))


def main(enter_namespace: Callable[[], None], gate: "Callable[[Callable[[], dict[str, Any]]], int]") -> int:
    """Do it, and be the gate. sys.argv[1:]: the command to try, none where that was done before."""
    try:
        enter_namespace()
        problem = tried(sys.argv[1:])
    except OSError as failure:
        problem = str(failure)
    del sys.argv[1:]  # the gate would take them for its own
    with socket.socket(fileno=os.dup(0)) as launcher:
        try:
            launcher.sendall(json.dumps(problem).encode() + b"\n")
            if problem or not launcher.recv(1, socket.MSG_PEEK):
                return 1
        except OSError:  # it is gone
            return 1
    return gate(take_rest)
