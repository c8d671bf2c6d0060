"""What a hostile command tries from inside a run, as a program without dependencies: prints one JSON object.

python3 probe.py '{"tcp": [[host, port]…], "abstract": "name"}'     what of the host listens, and must not be reached
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
TARGETS: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {"tcp": [], "abstract": ""}
DOOR = ((socket.SOCK_STREAM, (80, 443, 53, 19080)), (socket.SOCK_DGRAM, (53,)))
ADDRESSES = ("127.0.0.1", "0.0.0.0")
CALLS = {
    "io_uring_setup": (425, 1, 0),
    "keyctl": (250, 0, -3, 0),
    "add_key": (248, 0, 0, 0, 0, 0),
    "request_key": (249, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 0),
    "unshare a user namespace": (272, 0x10000000),
    "unshare a network namespace": (272, 0x40000000),
    "setns": (308, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "pidfd_getfd": (438, 0, 0, 0),
    "clone3": (435, 0, 0),
    "a vsock socket": (41, 40, 1, 0),
    "a packet socket": (41, 17, 3, 0),
    "a raw socket": (41, 2, 3, 1),
    "an alg socket": (41, 38, 5, 0),
    "an audit socket": (41, 16, 3, 9),
    "a vsock socket with high bits": (41, 1 << 32 | 40, 1, 0),
    "TIOCSTI": (16, 0, 0x5412, 0),
    "TIOCSTI with high bits": (16, 0, 1 << 32 | 0x5412, 0),
}


def outcome(act: Callable[[], object]) -> str:
    """Return "done", or the name of the error."""
    try:
        act()
    except OSError as failure:
        return errno.errorcode.get(failure.errno or 0, str(failure))
    return "done"


def call(numbers: tuple[int, ...]) -> str:
    """Make a system call and return its error, "done" if there is none."""
    ctypes.set_errno(0)
    result = libc.syscall(*(ctypes.c_long(number) for number in numbers))
    return "done" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")


def connect(address: object, family: int, kind: int = socket.SOCK_STREAM) -> str:
    """Try to connect; for datagrams, to send as well."""

    def act() -> None:
        with socket.socket(family, kind) as sock:
            sock.settimeout(2)
            sock.connect(address)  # type: ignore[arg-type] # whichever family's
            sock.send(b"\0" * 8)

    return outcome(act)


def steal(kind: int, address: str, port: int, option: int | None) -> str:
    """Try to bind a port of the door's, and to listen there."""

    def act() -> None:
        with socket.socket(socket.AF_INET, kind) as sock:
            if option is not None:
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            sock.bind((address, port))
            if kind == socket.SOCK_STREAM:
                sock.listen()

    return outcome(act)


def thefts() -> dict[str, str]:
    """Try every port of the door's, in every way."""
    ways = {"plainly": None, "with SO_REUSEADDR": socket.SO_REUSEADDR, "with SO_REUSEPORT": socket.SO_REUSEPORT}
    return {
        f"{address} {port} {kind.name} {way}": steal(kind, address, port, option)
        for kind, ports in DOOR
        for port in ports
        for address in ADDRESSES
        for way, option in ways.items()
    }


def ways_out() -> dict[str, str]:
    """Try to connect to what must not be reached."""
    found = {f"host {host} {port}": connect((host, port), family_of(host)) for host, port in TARGETS["tcp"]}
    found |= {f"udp {host}": connect((host, 9), family_of(host), socket.SOCK_DGRAM) for host, _ in TARGETS["tcp"]}
    found["abstract"] = connect(f"\0{TARGETS['abstract']}", socket.AF_UNIX)
    found["192.0.2.1"] = connect(("192.0.2.1", 443), socket.AF_INET)
    found["192.0.2.1 udp"] = connect(("192.0.2.1", 53), socket.AF_INET, socket.SOCK_DGRAM)
    found["2001:db8::1"] = connect(("2001:db8::1", 443), socket.AF_INET6)
    return found


def family_of(host: str) -> int:
    """Return the address family of a literal."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def writes() -> dict[str, str]:
    """Try to change what decides where a run connects, and what the kernel does."""
    files = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/proc/sys/kernel/core_pattern",
             "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/etc/moat-was-here")  # fmt: skip

    def act(path: str) -> Callable[[], None]:
        return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))

    return {path: outcome(act(path)) for path in files}


def sockets() -> Iterator[str]:
    """Yield every socket in the file system."""
    for folder, folders, files in os.walk("/"):
        if folder in ("/proc", "/sys"):
            folders.clear()
            continue
        for name in files:
            path = os.path.join(folder, name)  # noqa: PTH118 - a walk of the whole system
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    yield path


def read(path: str) -> str:
    """Return a file's text."""
    with contextlib.suppress(OSError), open(path, errors="replace") as file:  # noqa: PTH123 - no dependencies
        return file.read()
    return ""


def add_address() -> str:
    """Try what only the network's owner may."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return outcome(lambda: fcntl.ioctl(sock, 0x8914, b"lo" + b"\0" * 14 + b"\x49\0" + b"\0" * 14))


def main() -> None:
    """Print everything that was tried."""
    status = dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line)
    routes = [line.split() for line in (read("/proc/net/route") + read("/proc/net/ipv6_route")).splitlines()]
    print(  # noqa: T201 - its output is its result
        json.dumps(
            {
                "interfaces": sorted(name for _, name in socket.if_nameindex()),
                "routes": [fields for fields in routes if fields[0] != "Iface" and fields[-1] != "lo"],
                "ways_out": ways_out(),
                "thefts": thefts(),
                "calls": {name: call(numbers) for name, numbers in CALLS.items()},
                "writes": writes(),
                "sockets": list(sockets()),
                "abstract": [
                    line.split()[7] for line in read("/proc/net/unix").splitlines()[1:] if len(line.split()) > 7
                ],
                "status": {
                    name: status[name].strip()
                    for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "NoNewPrivs", "Seccomp", "Uid")
                },
                "commands": [read(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()],  # noqa: PTH208 - no dependencies
                "mounts": read("/proc/self/mountinfo"),
                "hosts": read("/etc/hosts"),
                "resolver": read("/etc/resolv.conf"),
                "hostname": socket.gethostname(),
                "set an interface": add_address(),
                "addrconfig": bool(socket.getaddrinfo("localhost", 80, socket.AF_INET, 0, 0, socket.AI_ADDRCONFIG)),
                "environment": dict(os.environ),
            }
        )
    )


main()
