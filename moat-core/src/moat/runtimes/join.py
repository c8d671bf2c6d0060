"""Starts one more command in a finished sandbox of bwrap's, caged exactly as what runs there.

    outside ─setns─▶ in every namespace but that of process ids, with all rights in the sandbox's user namespace
            ─▶ no capability · no new privileges · the filter ─checked─▶ fork ─▶ inside, seen for the first time ─▶ exec

The order is what makes it safe. A process that joins a namespace of process ids stays outside of it; only its children
are in. So while there are rights to be had, nobody inside can see, trace or signal this process, and what they see in
the end has none and never had. After setns no file is opened by name here, and nothing is imported: names are theirs.

Runs alone (`python -I -S join.py`): standard library only, nothing of moat. Talks to its starter over its standard
streams, in lines of JSON:

    ──{"sandbox": pidfd, "filter": fd, "stdio": [3], "argv", "env", "workdir", "terminal"}──▶
    ◀── {"event": "started"} | {"event": "failed", "problem"}        ──{"signal": n}──▶        end of input: kill it
    ◀── {"event": "exited", "code"}
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import struct
import termios

TYPE_CHECKING = False  # typing's own costs milliseconds
if TYPE_CHECKING:
    from typing import Any

NAMESPACES = {"user": 0x1000_0000, "mnt": 0x2_0000, "pid": 0x2000_0000, "net": 0x4000_0000, "ipc": 0x0800_0000,
              "uts": 0x0400_0000, "cgroup": 0x0200_0000}  # name in /proc/*/ns → CLONE_NEW…  # fmt: skip
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 (capget(2)): 64 bits, as two structures
LAST_CAPABILITY = 63
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_GET_SECCOMP, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = (
    1,
    4,
    21,
    22,
    23,
    24,
)
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 39, 47, 4
SECCOMP_MODE_FILTER, FILTER_STEP_BYTES = 2, 8
ABSENT, UNUSABLE = 127, 126  # as a shell says it (POSIX, 2.8.2)

libc = ctypes.CDLL(None, use_errno=True)


class Program(ctypes.Structure):
    """struct sock_fprog, with which a filter is loaded."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def differing(pid: int) -> int:
    """Return the flags of the namespaces that a process has and we do not: joining one's own may be refused."""
    flags = 0
    for name, flag in NAMESPACES.items():
        if os.stat(f"/proc/{pid}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:  # noqa: PTH116 # no Path
            flags |= flag
    return flags


def enter(sandbox: int, flags: int) -> None:
    """Join the namespaces of a process, all at once (setns(2), Linux 5.8). Raises OSError."""
    if flags & NAMESPACES["user"] == 0 or flags & NAMESPACES["pid"] == 0 or flags & NAMESPACES["net"] == 0:
        raise OSError(0, "it is no sandbox: it has namespaces of ours")
    call(libc.setns(sandbox, flags), "its namespaces cannot be joined")


def cage(steps: bytes) -> None:
    """Give up every right for good and load the filter. Raises OSError when that does not work, or not wholly."""
    control(PR_SET_DUMPABLE, 0)
    for number in range(LAST_CAPABILITY + 1):
        if libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            control(PR_CAPBSET_DROP, number)
    control(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    call(libc.capset(struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)), "capabilities cannot be given up")
    control(PR_SET_NO_NEW_PRIVS, 1)
    program = Program(len(steps) // FILTER_STEP_BYTES, steps)
    call(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "the filter cannot be loaded")
    if left := freedom():
        raise OSError(0, f"there is freedom left: {left}")


def freedom() -> str:
    """Return in what we are freer than a command of the sandbox; "" if in nothing."""
    held = ctypes.create_string_buffer(24)
    call(libc.capget(struct.pack("=Ii", CAPABILITY_VERSION, 0), held), "capabilities cannot be read")
    if any(held.raw):
        return "capabilities"
    if any(libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1 for number in range(LAST_CAPABILITY + 1)):
        return "capabilities to be gained"
    if libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        return "new privileges"
    return "" if libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == SECCOMP_MODE_FILTER else "system calls"


def control(option: int, value: int) -> None:
    """prctl(2). Raises OSError."""
    call(libc.prctl(option, value, 0, 0, 0), f"prctl {option} failed")


def call(result: int, problem: str) -> None:
    """Raise OSError where a call of the C library's failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{problem}: {os.strerror(number)}")


def become(config: dict[str, Any]) -> int:
    """Be the command, or return an exit code."""
    control(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    if config["terminal"]:
        fcntl.ioctl(config["stdio"][0], termios.TIOCSCTTY, 0)
    for number, given in enumerate(config["stdio"]):
        os.dup2(given, number)
    for number in {config["sandbox"], config["filter"], *config["stdio"]}:
        os.close(number)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    argv, env = config["argv"], config["env"]
    folders = [""] if "/" in argv[0] else [f"{folder}/" for folder in env.get("PATH", "").split(":")]
    code = ABSENT
    for folder in folders:
        try:
            os.execve(folder + argv[0], argv, env)  # noqa: S606 # it is the user's command
        except OSError as failure:
            code = code if failure.errno == errno.ENOENT else UNUSABLE
    return code


def tell(event: dict[str, Any]) -> None:
    """Write one line to our starter; it may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")


def attend(child: int, woken: int) -> int:
    """Pass signals on until the child has ended; return its exit code. woken: readable after SIGCHLD."""
    poll, lines = select.poll(), b""
    poll.register(0, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        ready = [number for number, _ in poll.poll()]
        if woken in ready:
            os.read(woken, 64)
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        if 0 in ready:
            data = os.read(0, 4096)
            *whole, lines = (lines + data).split(b"\n")
            numbers = [int(json.loads(line)["signal"]) for line in whole]
            if not data:
                poll.unregister(0)
                numbers.append(signal.SIGKILL)
            for number in numbers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, number)


def main() -> int:
    """Do everything."""
    with os.fdopen(0, "rb", buffering=0, closefd=False) as starter:  # byte by byte: what follows stays there
        config = json.loads(starter.readline())
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    try:
        steps = os.pread(config["filter"], 1 << 20, 0)
        enter(config["sandbox"], differing(config["pid"]))
        cage(steps)
        os.chdir(config["workdir"])
        begun, begins = os.pipe()
        child = os.fork()
        if child == 0:
            return become(config)
        for number in {begins, config["sandbox"], config["filter"], *config["stdio"]}:
            os.close(number)
        os.read(begun, 1)  # its end: the child is the command now, and leads its process group
        tell({"event": "started"})
        tell({"event": "exited", "code": attend(child, woken)})
    except OSError as failure:
        tell({"event": "failed", "problem": failure.strerror or str(failure)})
        return 1
    return 0


if __name__ == "__main__":
    code = UNUSABLE
    try:
        code = main()
    finally:  # at once: a traceback would be looked up in files, by name
        os._exit(code)
