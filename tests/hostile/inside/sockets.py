"""Ways out over unix sockets: those of the host by name, and whatever socket can be found in the view."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hostile.inside.attempt import LIBC, PATIENCE_S, Outcomes, tried

KINDS = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM, "packets": socket.SOCK_SEQPACKET}
ELSEWHERE = ("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock",
             "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/notify", "/dev/log",
             "/run/systemd/journal/socket", "/run/user/0/bus", "/run/user/1000/bus", "/tmp/.X11-unix/X0",
             "\0/tmp/.X11-unix/X0", "/run/nscd/socket", "/run/pcscd/pcscd.comm", "/run/postgresql/.s.PGSQL.5432",
             "\0/org/freedesktop/systemd1", "/run/snapd.socket", "/root/.gnupg/S.gpg-agent",
             "/run/user/0/gnupg/S.gpg-agent")  # fmt: skip

DEEPEST = 60  # folders in folders: what a test of another kind makes beside this one may be endless


def everything(paths: list[str], own: str, queue: int) -> dict[str, Outcomes]:
    """Try the sockets at paths (NUL first: abstract) and all that are in the view; own: a folder of this program's."""
    known = {
        f"{name} {path!r}": tried(partial(_connect, path, kind))
        for path in (*paths, *ELSEWHERE)
        for name, kind in KINDS.items()
    }
    found = {path: tried(partial(_connect, path, socket.SOCK_STREAM)) for path in _in_view(own)}
    return {
        "unix_sockets": known,
        "sockets_in_view": found,
        "system_v": {"message queue": tried(partial(_queue, queue))},
        "posix": {"shared memory": tried(partial(os.open, f"/dev/shm/moat-lure-{queue}", os.O_RDONLY))},
        "abstract": {"names": " ".join(_abstract())},
    }


def _connect(path: str, kind: socket.SocketKind) -> str:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(path)
        sock.send(b"out")
        return "connected"


def _in_view(own: str) -> Iterator[str]:
    for root in ("/dev", "/etc", "/home", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var", "/workspace"):
        for folder, folders, names in os.walk(root):
            if folder.count("/") > DEEPEST:
                folders.clear()
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(path.lstat().st_mode) and not str(path).startswith(own):
                        yield str(path)


def _queue(key: int) -> str:
    identifier = LIBC.msgget(key, 0)
    if identifier < 0:
        raise OSError(ctypes.get_errno(), "no queue")
    return "reached a message queue of the host"


def _abstract() -> list[str]:
    with contextlib.suppress(OSError):
        lines = Path("/proc/net/unix").read_text().splitlines()[1:]
        return [line.split()[-1] for line in lines if "@" in line]
    return []
