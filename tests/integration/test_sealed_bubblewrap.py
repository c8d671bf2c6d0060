"""Real sealed runs in bubblewrap, as root and as an ordinary user, with the gate outside and inside."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import moat
import pytest
from support import sealed
from support.sealed import Outcome

USER = "tester"
SYSTEM_PYTHON = "/usr/bin/python3"

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root"),
]


@dataclass
class Run:
    """One way to run something sealed: a user and where the gate stands."""

    user: str
    place: str
    folder: Path

    def __call__(self, *argv: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Outcome:
        request = {
            "argv": argv,
            "workspace": str(self.folder / "workspace"),
            "home": str(self.folder / "home"),
            "env": dict(env or {}),
            "stdin": base64.b64encode(stdin).decode(),
        }
        command = [SYSTEM_PYTHON, str(self.folder / "lib" / "sealed.py")]
        account = pwd.getpwnam(self.user)
        done = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            env={
                "PYTHONPATH": str(self.folder / "lib"),
                "MOAT_BUBBLEWRAP_GATE": self.place,
                "PATH": os.environ["PATH"],
            },
            cwd="/",
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            capture_output=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        answer = json.loads(done.stdout)
        return Outcome(
            answer["code"], base64.b64decode(answer["out"]), base64.b64decode(answer["err"]), answer["problem"]
        )

    def python(self, program: str) -> str:
        """Run a Python program inside, expect exit 0 and return what it prints."""
        outcome = self(SYSTEM_PYTHON, "-c", program)
        assert outcome.code == 0, (outcome.problem, outcome.err.decode())
        return outcome.text.strip()


@pytest.fixture(
    params=[("root", "outside"), (USER, "outside"), ("root", "inside"), (USER, "inside")],
    ids=["root, gate outside", "user, gate outside", "root, gate inside", "user, gate inside"],
)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Everything that another user needs, where that user can read it; the checkout may be in root's home."""
    user, place = request.param
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        subprocess.run(["useradd", "--create-home", user], check=True)
        account = pwd.getpwnam(user)
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        for package in (moat, _pluggy()):
            assert package.__file__ is not None
            shutil.copytree(Path(package.__file__).parent, folder / "lib" / package.__name__)
        shutil.copy(sealed.__file__, folder / "lib" / "sealed.py")
        for each in ("workspace", "home"):
            (folder / each).mkdir(mode=0o700)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
        yield Run(user, place, folder)


def _pluggy() -> ModuleType:
    return importlib.import_module("pluggy")


def test_exit_code_and_streams_are_the_commands_own(run: Run) -> None:
    data = bytes(range(256)) * 4096

    outcome = run("sh", "-c", "cat; echo oops >&2; exit 7", stdin=data)

    assert (outcome.code, outcome.out, outcome.err) == (7, data, b"oops\n")


def test_death_by_signal_is_128_and_its_number(run: Run) -> None:
    assert run("sh", "-c", "kill -TERM $$").code == 128 + 15


def test_proxy_answers_without_a_token(run: Run) -> None:
    program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:19080/x').read().decode())"

    assert run.python(program) == "hello from the stand-in"


def test_only_loopback_and_no_route(run: Run) -> None:
    program = "import socket; print(socket.if_nameindex(), len(open('/proc/net/route').readlines()))"

    assert run.python(program) == "[(1, 'lo')] 1"


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "169.254.169.254", "172.17.0.1", "255.255.255.255"])
def test_nothing_else_can_be_reached(run: Run, address: str) -> None:
    program = f"""
import errno, socket
tcp = socket.socket().connect_ex(({address!r}, 80))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect_ex(({address!r}, 53))
print(errno.errorcode[tcp], errno.errorcode[udp] in ("ENETUNREACH", "EACCES"))
"""
    assert run.python(program) == "ENETUNREACH True"


def test_ports_of_the_door_cannot_be_bound(run: Run) -> None:
    program = """
import errno, socket
for kind, port in ((1, 19080), (1, 443), (1, 80), (1, 53), (2, 53)):
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for host in ("127.0.0.1", "0.0.0.0"):
        try:
            sock.bind((host, port))
            print("bound", host, port)
        except OSError as failure:
            assert failure.errno in (errno.EADDRINUSE, errno.EACCES)
"""
    assert run.python(program) == ""


def test_kernel_doors_beside_the_network_are_closed(run: Run) -> None:
    program = """
import ctypes, errno, os, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
def code(result): return errno.errorcode[ctypes.get_errno()] if result < 0 else "open"
x86 = platform.machine() == "x86_64"
calls = {"io_uring_setup": 425, "keyctl": 250 if x86 else 219, "add_key": 248 if x86 else 217,
         "request_key": 249 if x86 else 218, "bpf": 321 if x86 else 280, "perf_event_open": 298 if x86 else 241,
         "userfaultfd": 323 if x86 else 282, "unshare": 272 if x86 else 97, "mount": 165 if x86 else 40}
print({name: code(libc.syscall(number, 0, 0, 0, 0, 0)) for name, number in calls.items()})
print([family for family in range(64) if code(libc.socket(family, 2, 0)) == "open"])
print(code(libc.socket(40, 1, 0)), code(libc.syscall(41 if x86 else 198, ctypes.c_ulong(1 << 32 | 40), 1, 0)))
print(code(libc.socket(16, 3, 0)), code(libc.socket(16, 3, 9)), code(libc.socket(16, 3, 15)))
print(code(libc.ioctl(0, 0x5412, b"x")), code(libc.ioctl(0, ctypes.c_ulong(1 << 32 | 0x5412), b"x")))
print(code(libc.syscall(435, 0, 0)), code(libc.syscall(600, 0, 0)))
"""
    lines = run.python(program).splitlines()

    assert set(eval(lines[0]).values()) == {"EPERM"}  # noqa: S307 - our own program's output
    assert lines[1:] == ["[1, 2, 10, 16]", "EPERM EPERM", "open EPERM EPERM", "EPERM EPERM", "ENOSYS ENOSYS"]


def test_no_socket_of_the_host_is_in_view(run: Run) -> None:
    program = """
import os, stat
for top, folders, files in os.walk("/"):
    if top.startswith("/proc"): folders.clear(); continue
    for name in files:
        path = os.path.join(top, name)
        try: mode = os.lstat(path).st_mode
        except OSError: continue
        if stat.S_ISSOCK(mode): print(path)
print(open("/proc/net/unix").read().count("@"))
"""
    assert run.python(program) == "0"


def test_gate_cannot_be_looked_into_or_traced(run: Run) -> None:
    program = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for name in filter(str.isdigit, os.listdir("/proc")):
    if b"gate" b".py" in open(f"/proc/{name}/cmdline", "rb").read() and int(name) != 1:
        for path in ("environ", "mem", "maps"):
            try: open(f"/proc/{name}/{path}").read(); print("read", path)
            except PermissionError: pass
        try: os.readlink(f"/proc/{name}/fd/3"); print("fd")
        except PermissionError: pass
        if libc.ptrace(16, int(name), 0, 0) == 0: print("traced")
        pidfd = os.pidfd_open(int(name))
        if libc.syscall(438, pidfd, 3, 0) >= 0: print("stole")
        print("gate seen")
"""
    assert run.python(program) == ("gate seen" if run.place == "inside" else "")


def test_kernel_settings_are_read_only(run: Run) -> None:
    program = """
import os
print([os.path.join(top, name) for root in ("/proc/sys", "/proc/irq") for top, _, names in os.walk(root)
       for name in names if os.access(os.path.join(top, name), os.W_OK)])
"""
    assert run.python(program) == "[]"


def test_nothing_in_etc_can_be_changed_copied_or_not(run: Run) -> None:
    """Its small files belong to the run's own user: what keeps them as they are is the file system."""
    script = """import os
for path in ("/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/new"):
    for change in (lambda: open(path, "a"), lambda: os.chmod(path, 0o777), lambda: os.unlink(path),
                   lambda: os.rename("/etc/hosts", path), lambda: os.utime(path)):
        try:
            change()
        except (PermissionError, FileNotFoundError):
            continue
        except OSError as failure:
            if failure.errno in (16, 30):
                continue
            raise
        print("changed", path)
print("done")"""
    assert run.python(script) == "done"


def test_run_is_an_ordinary_user_without_capabilities(run: Run) -> None:
    program = """
import os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
caps = [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
print(os.getuid(), os.getgid(), caps, status["NoNewPrivs"].strip(), status["Seccomp"].strip())
"""
    assert run.python(program) == "1000 1000 [0, 0, 0, 0, 0] 1 2"


def test_command_inherits_nothing_but_its_streams(run: Run) -> None:
    program = "import os; print([n for n in range(512) if os.path.exists(f'/proc/self/fd/{n}')])"

    assert run.python(program) == "[0, 1, 2]"


def test_view_holds_nothing_of_the_hosts_users(run: Run) -> None:
    program = """
import os
print(sorted(os.listdir("/home")), os.path.exists("/root/.bashrc"), os.path.exists("/etc/shadow"), os.listdir("/run"))
print(open("/etc/resolv.conf").read().strip(), os.uname().nodename, os.getcwd())
"""
    assert run.python(program).splitlines() == ["['moat'] False False []", "nameserver 127.0.0.1 calm-otter /workspace"]


def test_environment_is_exactly_the_plans(run: Run) -> None:
    outcome = run("env", "-0", env={"LD_PRELOAD": "/nowhere.so", "TEXT": "two\nlines"})

    names = {entry.partition("=")[0] for entry in outcome.text.split("\0")}
    assert names - {""} == {*sealed.ENVIRONMENT, "LD_PRELOAD", "TEXT", "PWD"} - (
        {"PWD"} if run.place == "inside" else set()
    )
    assert "TEXT=two\nlines" in outcome.text


def test_workspace_is_written_as_the_invoker(run: Run) -> None:
    assert run("sh", "-c", "echo hello > made").code == 0

    made = run.folder / "workspace" / "made"
    assert made.owner() == run.user
    assert made.read_text() == "hello\n"
