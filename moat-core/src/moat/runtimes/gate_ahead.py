"""The first moments of a gate that is started ahead of its run: its namespace, a trial of bwrap in it, a wait.

    launcher ─▶ trial, in our arguments
             ◀─ one line of JSON: "" or why no sandbox can be made here
             ── one byte: how many descriptors, which come with it ── their numbers ──▶
             ── what gate.py says of its first line, and everything after it ──▶

Runs alone, beside gate.py, whose interpreter it is: standard library only, nothing of moat. Before it is told so there
is no run, and a launcher that goes has changed its mind.
"""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence

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


def take_descriptors(launcher: socket.socket) -> bool:
    """Take the run's descriptors over, each at the number that the launcher has it at; return whether there is a run.

    The numbers are far above those that we have ourselves.
    """
    count, received, _, _ = socket.recv_fds(launcher, 1, MOST_DESCRIPTORS)
    if not count:
        return False
    for number in received:
        (wanted,) = struct.unpack("=i", launcher.recv(4, socket.MSG_WAITALL))
        os.dup2(number, wanted, inheritable=False)
        os.close(number)
    return True


def main(enter_namespace: Callable[[], None], gate: Callable[[], int]) -> int:
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
            if problem or not take_descriptors(launcher):
                return 1
        except OSError:  # it is gone
            return 1
    return gate()
