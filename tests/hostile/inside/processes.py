"""Reaching other processes, the gate above all; and getting more rights than were given."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from hostile.inside.attempt import LIBC, Outcomes, number, syscall, tried, tried_apart

SETUID_PROGRAMS = ("/bin/su", "/usr/bin/mount", "/usr/bin/sudo", "/usr/bin/newgrp", "/usr/bin/passwd", "/bin/ping")
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
RIGHTS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid")


def everything() -> dict[str, Outcomes]:
    """Try every process that is not this program's, and every way to rights."""
    return {
        "others": {name: outcome for pid in _others() for name, outcome in _touch(pid)},
        "guessed": _guessed(),
        "rights": _rights(),
        "more_rights": {name: tried_apart(call) for name, call in _more().items()},
        "first": {f"{pid} {name}": link for pid in (1, 2) for name, link in _links(pid)},
        "processes": {str(pid): _command(pid) for pid in _all()},
    }


def _all() -> list[int]:
    return sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _links(pid: int) -> list[tuple[str, str]]:
    """Return what a process's descriptors are, as far as that can be read."""
    found = []
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            found.append((path.name, str(path.readlink())))
    return found


def _others() -> list[int]:
    """Return the processes that are neither this one, nor its ancestors inside the sandbox; the gate always."""
    own, pid = {1}, os.getpid()
    while pid > 1:
        own.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return [pid for pid in _all() if pid not in own or "gate.py" in _command(pid)]


def _touch(pid: int) -> Iterator[tuple[str, str]]:
    if "gate.py" not in _command(pid):  # a gate inside may be killed: its run ends with it
        yield f"signal {pid}", tried(partial(os.kill, pid, 0))
    yield f"attach to {pid}", tried_apart(partial(_ptrace, PTRACE_ATTACH, pid))
    yield f"descriptors of {pid}", tried(partial(os.listdir, f"/proc/{pid}/fd"))
    yield f"memory of {pid}", tried(partial(os.open, f"/proc/{pid}/mem", os.O_RDWR))
    yield f"root of {pid}", tried(partial(os.listdir, f"/proc/{pid}/root/"))
    yield f"take a descriptor of {pid}", tried_apart(partial(_take, pid))


def _guessed() -> Outcomes:
    """Try process numbers that cannot be seen: the gate's, were the pid namespace shared."""
    seen = set(_all())
    hidden = [pid for pid in range(2, 400) if pid not in seen]
    reached = [pid for pid in hidden if tried(partial(os.kill, pid, 0)).startswith("done")]
    return {f"signal {pid}": "done" for pid in reached}


def _ptrace(request: int, pid: int) -> str:
    if LIBC.ptrace(request, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "attached"


def _take(pid: int) -> str:
    descriptor = syscall(434, pid, 0)  # pidfd_open
    for wanted in range(3, 16):
        with contextlib.suppress(OSError):
            return f"took {syscall(438, descriptor, wanted, 0)}"  # pidfd_getfd
    raise OSError(1, "none to be had")


def _rights() -> Outcomes:
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name: value.strip() for name, value in pairs if name in RIGHTS}


def _more() -> dict[str, Callable[[], object]]:
    ambient, raise_one = 47, 2
    calls: dict[str, Callable[[], object]] = {f"run {path}": partial(_run, path) for path in SETUID_PROGRAMS}
    calls["set-user-id copy"] = partial(_copy)
    calls["ambient capability"] = partial(_prctl, ambient, raise_one, 12)
    calls["drop no_new_privs"] = partial(_prctl, 38, 0, 0)
    calls["keep capabilities over setuid"] = partial(_capset)
    calls["file capability"] = partial(_file_capability)
    if os.getuid() != 0:
        calls["become root"] = partial(os.setuid, 0)
        calls["join the root group"] = partial(os.setgid, 0)
    calls["gain a group"] = partial(os.setgroups, [0, 6, 999])
    return calls


def _run(path: str) -> str:
    """Run a set-user-id program that ends at once; it counts when it had capabilities."""
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(2, path)
    program = subprocess.Popen([path, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with contextlib.suppress(OSError):
        os.kill(program.pid, signal.SIGSTOP)
        for line in Path(f"/proc/{program.pid}/status").read_text().splitlines():
            if line.startswith("CapEff") and int(line.split()[1], 16):
                program.kill()
                return f"with capabilities {line}"
    program.kill()
    raise PermissionError(1, "no capabilities gained")


def _copy() -> str:
    shutil.copy("/usr/bin/id", "/tmp/moat-id")
    Path("/tmp/moat-id").chmod(0o6755)
    before = f"{os.geteuid()}"
    after = subprocess.run(["/tmp/moat-id", "-u"], capture_output=True, text=True, check=False).stdout.strip()
    if after == before or not after:
        raise PermissionError(1, "nothing gained")
    return f"became {after}"


def _prctl(option: int, first: int, second: int) -> str:
    if LIBC.prctl(option, first, second, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "allowed"


def _capset() -> str:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    wanted = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
    syscall(number(126, 91), header, wanted)
    return "all capabilities"


def _file_capability() -> str:
    shutil.copy("/usr/bin/id", "/tmp/moat-cap")
    os.setxattr("/tmp/moat-cap", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    return "set"
