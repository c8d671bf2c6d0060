"""Whether bubblewrap works on this machine, and where the gate can stand: found out by trying, in milliseconds.

Makes namespaces that end with the trial, and nothing else. Says in the user's words what is missing.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from moat.api.errors import UsageError
from moat.api.light import dataclass
from moat.api.runtimes import Readiness
from moat.runtimes.ahead import TRIAL_VIEW, VARIABLE, GateAhead
from moat.runtimes.child import found
from moat.runtimes.gatelink import gate_program
from moat.runtimes.seccomp import ARCHITECTURES
from moat.runtimes.view import ISOLATION

Place = Literal["outside", "inside"]
SO_NETNS_COOKIE = 71  # as the gate knows it, which is not loaded for this alone
OLDEST = (0, 8)  # --disable-userns
TRIAL_S = 10.0  # milliseconds, unless the machine is thrashing
APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
SWITCHES = (("kernel.unprivileged_userns_clone", "0", "1"), ("user.max_user_namespaces", "0", "15000"))

_TRY = "gate.enter_namespace(); os.execvp(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Found:
    """What the trial showed. place: where the gate can stand, None if nowhere."""

    place: Place | None
    readiness: Readiness


OUTSIDE = Found("outside", Readiness(True, "sealed by namespaces; the gate stands outside"))


def found_ahead(ahead: GateAhead) -> Found | None:
    """Return what a gate that tries already has found, None where there is more to find out. Needs no event loop."""
    is_wanted = os.environ.get(VARIABLE, "") in ("", "outside") and found("bwrap") is not None
    return OUTSIDE if is_wanted and not _kernel_problem() and not ahead.heard() else None


async def find_place(
    env: Mapping[str, str] | None = None, proc_sys: Path = Path("/proc/sys"), ahead: GateAhead | None = None
) -> Found:
    """Try the places, best first, or only the one that MOAT_BUBBLEWRAP_GATE names. ahead: a gate that tries already.

    Raises UsageError when that names none.
    """
    wanted = (os.environ if env is None else env).get(VARIABLE, "")
    if wanted not in ("", "outside", "inside"):
        raise UsageError(f"{VARIABLE} is {wanted!r}", hint=f"export {VARIABLE}=outside, or =inside, or unset it")
    bwrap = found("bwrap")
    if bwrap is None:
        return _no("bubblewrap is not installed", install_hint())
    if problem := _kernel_problem():
        return _no(problem, "use --runtime docker")
    failure = ""
    if wanted != "inside":
        failure = await (_outside(bwrap, *ISOLATION, *TRIAL_VIEW) if ahead is None else ahead.verdict())
        if not failure:
            return OUTSIDE
    if wanted != "outside" and not await _trial(bwrap, "--unshare-net", *ISOLATION, *TRIAL_VIEW):
        return Found("inside", Readiness(True, _inside_detail(proc_sys, asked=wanted == "inside")))
    if problem := await _version_problem(bwrap):  # such a one does not know an option above, and fails
        return _no(problem, "install a newer bubblewrap, or use --runtime docker")
    return _no(*_refusal(failure or "bwrap cannot make its namespaces", proc_sys))


def install_hint() -> str:
    """Return the line that installs bubblewrap with this machine's package manager."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    for program, line in (
        ("apt-get", "apt-get install bubblewrap"),
        ("dnf", "dnf install bubblewrap"),
        ("pacman", "pacman -S bubblewrap"),
        ("zypper", "zypper install bubblewrap"),
        ("apk", "apk add bubblewrap"),
    ):
        if found(program):
            return f"run: {sudo}{line}"
    return "install the package bubblewrap"


def _no(problem: str, hint: str) -> Found:
    return Found(None, Readiness(False, problem, hint))


def _kernel_problem() -> str:
    if os.uname().machine not in ARCHITECTURES:
        return f"there is no system call filter for {os.uname().machine} yet"
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError:
            return f"Linux {os.uname().release} is too old: 5.14 or newer is needed to tell network namespaces apart"
    return ""


async def _version_problem(bwrap: str) -> str:
    text = await _output(bwrap, "--version")
    match = re.search(r"(\d+)\.(\d+)", text)
    if match is None:
        return f"{bwrap} does not tell its version"
    version = (int(match[1]), int(match[2]))
    return "" if version >= OLDEST else f"bubblewrap {match[0]} is too old: 0.8 or newer is needed"


def _inside_detail(proc_sys: Path, *, asked: bool) -> str:
    reason = f"{VARIABLE} says so" if asked else "this host takes capabilities from user namespaces"
    if not asked and _switch(proc_sys, APPARMOR) == "1":
        reason = f"AppArmor takes capabilities from user namespaces ({APPARMOR}=1)"
    return f"sealed by namespaces; the gate stands inside, so only the proxy port is served: {reason}"


def _refusal(failure: str, proc_sys: Path) -> tuple[str, str]:
    """Return problem and hint for a machine on which bwrap fails."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    if _switch(proc_sys, APPARMOR) == "1":
        hint = f"run: {sudo}sysctl {APPARMOR}=0, or use --runtime docker"
        return f"AppArmor lets no ordinary user make namespaces ({APPARMOR}=1)", hint
    for name, closed, opened in SWITCHES:
        if _switch(proc_sys, name) == closed:
            return f"this host forbids user namespaces ({name}={closed})", f"run: {sudo}sysctl {name}={opened}"
    return f"bubblewrap cannot make a sandbox here: {failure}", "use --runtime docker"


def _switch(proc_sys: Path, name: str) -> str:
    try:
        return proc_sys.joinpath(*name.split(".")).read_text().strip()
    except OSError:
        return ""


async def _outside(*argv: str) -> str:
    """Run a command in a network namespace, as a gate would; return like _trial.

    A child of ours makes it, since another interpreter would take longer than all the rest. Not beside other threads: a
    lock that one of them holds just now would never be free in the child.
    """
    if threading.active_count() > 1:
        return await _trial(*gate_program(_TRY), *argv)
    return await _trial(*argv, first=_enter)


def _enter() -> None:
    """Enter a namespace, in a child that has not become its program yet."""
    from moat.runtimes import gate

    try:
        gate.enter_namespace()
    except OSError as failure:
        os.write(2, str(failure).encode())
        os._exit(1)


async def _trial(*argv: str, first: Callable[[], None] | None = None) -> str:
    """Run a command; return "" if it succeeds, else the last line that it said. first: done by the child before."""
    import asyncio  # not at the top: a gate that is ahead spares us all this

    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=first,
    )
    try:
        async with asyncio.timeout(TRIAL_S):
            _, complaints = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return "it does not end"
    if process.returncode == 0:
        return ""
    return complaints.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {process.returncode}"


async def _output(*argv: str) -> str:
    import asyncio

    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    answer, _ = await process.communicate()
    return answer.decode(errors="replace")
