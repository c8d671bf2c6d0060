"""The gate: opens the only sockets that a sealed run can talk to, hands them to the daemon, and watches over the run.

Runs alone (`python -I -S gate.py`): standard library only, nothing of moat. Trusted, never inside what it guards (in
place "inside", where the host allows nothing better, it is at least undumpable: no ptrace, no /proc, no pidfd_getfd).
Never reads what goes over those sockets, and decides nothing: the daemon judges, the launcher says what to run.

    launcher ─stdin/stdout─▶ gate: namespace ─▶ sockets ─▶ hello + descriptors ─▶ daemon
                              look around, try what must not work ◀─ probe ─┘
                              probed ─▶ open ─▶ command ─▶ exit code
    stdin ends: the launcher is gone, the command is killed.  door ends: keep everything, try to reconnect for 30 s.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

TYPE_CHECKING = False  # typing's own costs every run two milliseconds
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
FULL_DOOR = (
    ("proxy", "tcp", "127.0.0.1", 19080),
    ("http", "tcp", "0.0.0.0", 80),  # noqa: S104 - all of the run's own loopback; there is no other interface
    ("tls", "tcp", "0.0.0.0", 443),  # noqa: S104 - as above
    ("dns-udp", "udp", "127.0.0.1", 53),
    ("dns-tcp", "tcp", "127.0.0.1", 53),
)
SMALL_DOOR = FULL_DOOR[:1]  # without capabilities there are no low ports
SECOND_ADDRESS = "127.107.255.254"  # with 127.0.0.1 alone, getaddrinfo's AI_ADDRCONFIG believes that there is no IPv4
ANSWER_S = 15.0  # the daemon's answer to hello or probed: it waits for the worker meanwhile
CONNECT_S = 2.0  # to a port of the run's own; nothing else is served meanwhile
CANARY_S = 0.5  # a canary is refused at once where there is no route; a filter may swallow it
RECONNECT_S, RECONNECT_EVERY_S, GRACE_S = 30.0, 0.5, 5.0  # the last: between SIGTERM and SIGKILL
BACKLOG = 1024  # connections wait here while the daemon is away

CLONE_NEWUSER, CLONE_NEWNET, PR_SET_DUMPABLE, SO_NETNS_COOKIE = 0x1000_0000, 0x4000_0000, 4, 71  # 71: Linux 5.14
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8913, 0x8914, 0x8916, 1
HEADER, LIMIT_BYTES = struct.Struct("!IB"), 1024 * 1024  # a frame: length, count of descriptors, JSON


class Refused(Exception):
    """The daemon said no, or cannot be understood."""


class Unreached(Exception):
    """The door cannot be connected to."""


def enter_namespace() -> None:
    """Move into a fresh network namespace with only lo, up; as an ordinary user, into a user namespace that owns it."""
    uid, gid = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET if uid == 0 else CLONE_NEWUSER | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no new network namespace can be made")
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with contextlib.closing(os.fdopen(os.open(f"/proc/self/{name}", os.O_WRONLY), "w")) as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP | interface_flags(sock, "lo")))


def add_second_address() -> None:
    """Give lo its second address, where we may."""
    address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(SECOND_ADDRESS))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        fcntl.ioctl(sock, SIOCSIFADDR, address)


def become_undumpable() -> None:
    """Close our memory, descriptors and environment to every process of our user (prctl(2))."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot be made undumpable")


def open_socket(kind: str, host: str, port: int) -> socket.socket:
    """Open one of the door's sockets, a unix one at host. No reuse: the run could bind the port too and steal."""
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    sock.bind(host if kind == "unix" else (host, port))
    if kind == "unix":
        os.chmod(host, 0o666)  # noqa: PTH101, S103 - only the run can reach it, and as whom is not known here
    if kind != "udp":
        sock.listen(BACKLOG)
    return sock


def interface_flags(sock: socket.socket, name: str) -> int:
    """Return an interface's flags (netdevice(7))."""
    return int(struct.unpack("16sH14x", fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16s16x", name.encode())))[1])


def interfaces() -> list[list[Any]]:
    """Return every interface's name and whether it is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return [[name, bool(interface_flags(sock, name) & IFF_UP)] for _, name in socket.if_nameindex()]


def contents(path: str) -> str:
    """Return a file of /proc, "" if there is none."""
    with contextlib.suppress(OSError), os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
        return file.read()
    return ""


def routes() -> list[str]:
    """Return the routes that lead anywhere but to lo."""
    version_4 = [line for line in contents("/proc/self/net/route").splitlines()[1:] if line.split()[0] != "lo"]
    return version_4 + [line for line in contents("/proc/self/net/ipv6_route").splitlines() if line.split()[-1] != "lo"]


def can_connect(family: int, address: Any) -> bool:
    """Try a canary."""
    with socket.socket(family) as sock:
        sock.settimeout(CANARY_S)
        return sock.connect_ex(address) == 0


def door_answer() -> str:
    """Return what the worker says at the run's own proxy port; "" if it says nothing useful."""
    data = b""
    with contextlib.suppress(OSError), socket.create_connection(FULL_DOOR[0][2:], timeout=ANSWER_S) as sock:
        sock.sendall(b"GET /_moat/probe HTTP/1.1\r\nHost: 127.0.0.1:19080\r\nConnection: close\r\n\r\n")
        while len(data) < 4096 and (part := sock.recv(4096)):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return body.decode(errors="replace").strip() if head.split(b" ")[1:2] == [b"200"] else ""


def netns_cookie() -> int:
    """Return the number of our network namespace; no other ever has it while the machine runs."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)


class Door:
    """The connection to the daemon. The folder stays open: its path may be long, or be seen by nobody but us."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.nonce = config["nonce"]
        try:
            self.folder = os.open(config["door"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as failure:
            raise Unreached(str(failure)) from None
        self.layout = (*(SMALL_DOOR if config["place"] == "inside" else FULL_DOOR), *config.get("places", ()))
        here = f"/proc/self/fd/{self.folder}/"
        self.sockets = [open_socket(kind, here * (kind == "unix") + host, port) for _, kind, host, port in self.layout]
        self.sock = socket.socket(socket.AF_UNIX)

    def open(self, *, again: bool = False) -> None:
        """Connect, hand the sockets over, answer probes until the daemon opens. Raises Unreached or Refused."""
        self.sock.close()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        try:
            self.sock.connect(f"/proc/self/fd/{self.folder}/door.sock")
        except OSError as failure:  # a folder that was removed: the run was ended
            raise (Unreached if os.fstat(self.folder).st_nlink else Refused)(str(failure)) from None
        named = [dict(zip(("name", "kind", "host", "port"), row, strict=True)) for row in self.layout]
        hello = {"type": "hello", "version": VERSION, "nonce": self.nonce, "sockets": named, "again": again}
        try:
            self.send(hello, self.sockets)
            while (message := self.receive()).get("type") == "probe":
                self.send({"type": "probed", **self.look(message)})
        except OSError as failure:
            raise (Unreached if again else Refused)(f"the daemon does not answer: {failure}") from None
        if message.get("type") != "open":  # {}: it died once more, and its successor comes
            raise (Refused if message or not again else Unreached)(message.get("problem", "the daemon hung up"))

    def look(self, probe: dict[str, Any]) -> dict[str, Any]:
        """Return what we see of the world. Nothing that the daemon names must be reachable."""
        places = [(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)) for host, port in probe["tcp"]]
        reached = [f"{target[0]} port {target[1]}" for family, target in places if can_connect(family, target)]
        reached += ["an abstract unix socket"] * can_connect(socket.AF_UNIX, "\0" + probe["abstract"])
        seen = {"interfaces": interfaces(), "routes": routes(), "reached": reached}
        return seen | {"cookie": netns_cookie(), "answer": door_answer()}

    def serve(self) -> bool:
        """Answer one request of the daemon's; return whether it is still there."""
        try:
            message = self.receive()
            if message.get("type") == "connect":
                self.connect_inside(message)
        except (OSError, Refused):
            return False
        return bool(message)

    def connect_inside(self, message: dict[str, Any]) -> None:
        """Connect to a port of the run's and hand the connected socket out."""
        try:
            sock = socket.create_connection(("127.0.0.1", message["port"]), timeout=CONNECT_S)
        except OSError as failure:
            self.send({"type": "unconnected", "id": message["id"], "problem": str(failure)})
        else:
            with sock:
                sock.setblocking(True)  # the daemon gets it as it is
                self.send({"type": "connected", "id": message["id"]}, [sock])

    def send(self, message: dict[str, Any], sockets: list[socket.socket] | None = None) -> None:
        """Send one frame, sockets with its first byte."""
        body = json.dumps(message).encode()
        data = HEADER.pack(len(body), len(sockets or ())) + body
        numbers = array.array("i", [sock.fileno() for sock in sockets or ()])
        sent = self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] * bool(sockets))
        if sent < len(data):  # an empty send to a daemon that answered and hung up meanwhile would fail
            self.sock.sendall(data[sent:])

    def receive(self) -> dict[str, Any]:
        """Return the next message, {} at the end. The daemon never sends descriptors; recv drops any."""
        length, _ = HEADER.unpack(self.exactly(HEADER.size) or bytes(HEADER.size))
        if length > LIMIT_BYTES:
            raise Refused("the daemon's message is too long")
        body = self.exactly(length)
        return json.loads(body) if body else {}

    def exactly(self, count: int) -> bytes:
        """Return count bytes, or none at the end."""
        data = b""
        while len(data) < count:
            if not (part := self.sock.recv(count - len(data))):
                return b""
            data += part
        return data


class Command:
    """What runs in the sandbox: bwrap, or in the place "inside" the command itself."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.is_ours = config["place"] == "inside"  # nothing stands between us and the command
        self.info, info = os.pipe()
        self.terminal = os.dup(config["stdio"][0]) if config["terminal"] else -1
        argv, given = list(config["argv"]), [*config["pass_fds"], *[info] * (not self.is_ours)]
        argv[1:1] = ["--info-fd", str(info)] * (not self.is_ours)
        stdin, stdout, stderr = config["stdio"]
        has_terminal = self.is_ours and config["terminal"]  # and takes it for the session that it begins
        self.process = subprocess.Popen(
            argv, env=config["env"], stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=given,
            start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(self.terminal, termios.TIOCSCTTY, 0)) if has_terminal else None,
        )  # fmt: skip
        for number in {info, *given, *config["stdio"]}:
            os.close(number)
        self.ended = os.pidfd_open(self.process.pid)

    def group(self) -> int:
        """Return the process group of the command, 0 while bwrap is still at work."""
        if self.is_ours:
            return self.process.pid
        if self.info >= 0:  # written in pieces
            with os.fdopen(self.info) as told:
                self.init, self.info = json.loads(told.read() or "{}").get("child-pid", 0), -1
        children = contents(f"/proc/{self.init}/task/{self.init}/children").split()
        return os.getpgid(int(children[0])) if children else 0

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group; before there is one, end bwrap."""
        with contextlib.suppress(ProcessLookupError):
            if group := self.group():
                os.killpg(group, number)
            else:
                self.kill()

    def kill(self) -> None:
        """End bwrap, and first its child: that dies with it only after it has made the sandbox."""
        if not self.is_ours:
            self.process.send_signal(signal.SIGSTOP)  # from now on it makes no other child
            for child in contents(f"/proc/{self.process.pid}/task/{self.process.pid}/children").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
        self.process.kill()

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; the kernel tells the foreground group."""
        if self.terminal >= 0:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def stop(self) -> int:
        """End the command, politely first; return its exit code. What is left in the sandbox ends with it."""
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.kill()
        return self.code()

    def code(self) -> int:
        """Wait, and return the exit code as a shell gives it."""
        return 128 - code if (code := self.process.wait()) < 0 else code


class Gate:
    """The loop: three descriptors, and nothing else that happens. Each handler returns the last event, or None."""

    def __init__(self, config: dict[str, Any], door: Door) -> None:
        self.door = door
        self.command = Command(config) if config["argv"] is not None else None
        self.lines, self.away_since = b"", 0.0
        self.selector = selectors.DefaultSelector()
        self.selector.register(0, selectors.EVENT_READ, self.controlled)
        self.selector.register(door.sock, selectors.EVENT_READ, self.asked)
        if self.command:
            self.selector.register(self.command.ended, selectors.EVENT_READ, self.exited)

    def run(self) -> dict[str, Any]:
        """Return the last event, after everything has ended."""
        while True:
            ready = [key.data for key, _ in self.selector.select(RECONNECT_EVERY_S if self.away_since else None)]
            for act in ready or [self.reconnect] * bool(self.away_since):
                if last := act():
                    return dict(last)

    def controlled(self) -> dict[str, Any] | None:
        """Read control lines; the end of input is the launcher's end."""
        if not (data := os.read(0, 65_536)):
            return {"event": "exited", "code": self.command.stop() if self.command else 0}
        *lines, self.lines = (self.lines + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if self.command and "signal" in message:
                self.command.signal(message["signal"])
            if self.command and "resize" in message:
                self.command.resize(*message["resize"])
        return None

    def asked(self) -> None:
        """Serve the daemon; when it is gone, keep the sockets and the command and look for its successor."""
        if not self.door.serve():
            self.selector.unregister(self.door.sock)
            self.door.sock.close()
            self.away_since = time.monotonic()

    def reconnect(self) -> dict[str, Any] | None:
        """Try the door again; give up when refused, or after RECONNECT_S."""
        try:
            self.door.open(again=True)
        except (Unreached, Refused) as failure:
            if isinstance(failure, Unreached) and time.monotonic() - self.away_since < RECONNECT_S:
                return None
            if self.command:
                self.command.stop()
            return {"event": "lost", "problem": str(failure)}
        self.away_since = 0.0
        self.selector.register(self.door.sock, selectors.EVENT_READ, self.asked)
        return None

    def exited(self) -> dict[str, Any]:
        """Tell the daemon that the command has ended."""
        code = self.command.code() if self.command else 0
        with contextlib.suppress(OSError):
            self.door.send({"type": "exited", "code": code})
        return {"event": "exited", "code": code}


def tell(event: dict[str, Any]) -> None:
    """Write one line to the launcher; it may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")


def main(rest: Any = None) -> int:
    """Do everything. `gate.py NUMBER`: talk to the launcher there. rest: returns what is told once the door is open."""
    for stream in (0, 1) if sys.argv[1:] else ():
        os.dup2(int(sys.argv[1]), stream)
    with os.fdopen(0, "rb", buffering=0, closefd=False) as launcher:  # byte by byte: what follows stays there
        config = json.loads(launcher.readline())
    try:
        if config["place"] == "outside":
            enter_namespace()
        add_second_address()
        become_undumpable()
        door = Door(config)
        door.open()
        tell({"event": "open"})
        gate = Gate(config | (rest() if rest else {}), door)
    except (OSError, Refused, Unreached) as failure:
        tell({"event": "unreached" if isinstance(failure, Unreached) else "refused", "problem": str(failure)})
        return 1
    if gate.command is not None:
        tell({"event": "started", "pid": gate.command.process.pid})
    tell(gate.run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
