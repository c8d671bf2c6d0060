"""Ways round a network namespace through the kernel: calls that reach past it, namespaces, mounts, terminals."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import termios
from functools import partial
from pathlib import Path

from hostile.inside.attempt import LIBC, Outcomes, number, syscall, tried, tried_apart

NAMESPACES = {"user": 0x10000000, "net": 0x40000000, "mount": 0x20000, "pid": 0x20000000, "ipc": 0x8000000,
              "uts": 0x4000000, "cgroup": 0x2000000, "time": 0x80}  # fmt: skip
HIGH = 1 << 32  # the kernel drops the upper half of an int argument; a filter that compares all of it is fooled
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
SETTINGS = ("kernel/core_pattern", "kernel/modprobe", "kernel/hotplug", "kernel/hostname", "kernel/randomize_va_space",
            "vm/overcommit_memory", "net/ipv4/ip_forward", "net/ipv4/ip_unprivileged_port_start", "fs/suid_dumpable",
            "kernel/ns_last_pid", "fs/binfmt_misc/register", "user/max_user_namespaces")  # fmt: skip
ELSEWHERE = ("/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/sys/kernel/mm/ksm/run", "/sys/power/state",
             "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/cgroup.procs", "/dev/mem",
             "/dev/kmem", "/dev/kmsg", "/dev/port", "/dev/vsock", "/dev/fuse", "/dev/kvm", "/dev/vhost-vsock",
             "/dev/net/tun", "/dev/sda", "/dev/vda", "/dev/loop-control", "/dev/userfaultfd",
             "/proc/kcore")  # fmt: skip


def everything() -> dict[str, Outcomes]:
    """Try all of it, each in a child of its own."""
    return {
        "calls": {name: tried_apart(call) for name, call in _calls().items()},
        "namespaces": _namespaces(),
        "mounts": {name: tried_apart(call) for name, call in _mounts().items()},
        "terminal": {
            f"{name} {hex(request)}": tried_apart(partial(_type_into_terminal, request))
            for name, request in (("TIOCSTI", TIOCSTI), ("TIOCSTI", TIOCSTI | HIGH), ("TIOCSTI", TIOCSTI | 1 << 63),
                                  ("TIOCLINUX", TIOCLINUX), ("TIOCLINUX", TIOCLINUX | HIGH))
        },
        "settings": {name: tried(partial(_write, f"/proc/sys/{name}")) for name in SETTINGS}
        | {path: tried(partial(_write, path)) for path in ELSEWHERE},
    }  # fmt: skip


def _calls() -> dict[str, partial[int]]:
    text = ctypes.c_char_p
    buffer = ctypes.create_string_buffer(256)
    attributes = ctypes.create_string_buffer(128)
    ctypes.memmove(attributes, (ctypes.c_uint * 2)(1, 112), 8)  # a software event
    return {
        "add_key": partial(syscall, number(248, 217), text(b"user"), text(b"moat"), text(b"out"), 3, -4),
        "request_key": partial(syscall, number(249, 218), text(b"user"), text(b"moat-lure"), None, 0),
        "keyctl read user keyring": partial(syscall, number(250, 219), 0, -4, 1),
        "keyctl join session": partial(syscall, number(250, 219), 1, text(b"moat")),
        "io_uring_setup": partial(syscall, 425, 4, buffer),
        "bpf map": partial(syscall, number(321, 280), 0, buffer, 72),
        "perf_event_open": partial(syscall, number(298, 241), attributes, 0, -1, -1, 0),
        "userfaultfd": partial(syscall, number(323, 282), 1),
        "open_by_handle_at": partial(syscall, number(304, 265), -100, buffer, 0),
        "init_module": partial(syscall, number(175, 105), buffer, 1, text(b"")),
        "sethostname": partial(syscall, number(170, 161), text(b"gone"), 4),
        "kcmp": partial(syscall, number(312, 272), 1, 1, 0, 0, 0),
        "fanotify_init": partial(syscall, number(300, 262), 0, 0),
        "lookup_dcookie": partial(syscall, number(212, 18), 0, buffer, 256),
        "quotactl": partial(syscall, number(179, 60), 0x800002 << 8, None, 0, buffer),
        "vsock, high bits": partial(syscall, number(41, 198), HIGH | 40, 1, 0),
        "packet, high bits": partial(syscall, number(41, 198), HIGH | 17, 3, 0),
        "netlink audit, high bits": partial(syscall, number(41, 198), HIGH | 16, 3, HIGH | 9),
        "netlink generic, high bits": partial(syscall, number(41, 198), 16, 3, HIGH | 16),
    }


def _namespaces() -> Outcomes:
    outcomes = {}
    for name, flag in NAMESPACES.items():
        outcomes[f"unshare {name}"] = tried_apart(partial(syscall, number(272, 97), flag))
        outcomes[f"unshare {name} and user"] = tried_apart(partial(syscall, number(272, 97), flag | 0x10000000))
        if flag > 0xFF:  # below are the bits of the exit signal
            outcomes[f"clone {name}"] = tried_apart(partial(_clone, flag | 17))
            outcomes[f"clone {name}, high bits"] = tried_apart(partial(_clone, flag | 17 | HIGH))
        outcomes[f"clone3 {name}"] = tried_apart(partial(_clone3, flag))
    for folder in Path("/proc").glob("[0-9]*/ns"):
        for entry in ("net", "user", "mnt", "pid", "ipc", "uts"):
            outcomes[f"setns {folder / entry}"] = tried_apart(partial(_enter, folder / entry))
    return outcomes


def _clone(flags: int) -> str:
    if syscall(number(56, 220), flags, 0, 0, 0, 0) == 0:
        os._exit(0)
    return "a child in a new namespace"


def _clone3(flag: int) -> str:
    arguments = (ctypes.c_uint64 * 11)(flag, 0, 0, 0, 17)
    if syscall(435, arguments, ctypes.sizeof(arguments)) == 0:
        os._exit(0)
    return "a child in a new namespace"


def _enter(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    syscall(number(308, 268), descriptor, 0)
    return f"entered {path.readlink()}"


def _mounts() -> dict[str, partial[int]]:
    text = ctypes.c_char_p
    return {
        "tmpfs": partial(syscall, number(165, 40), text(b"t"), text(b"/tmp"), text(b"tmpfs"), 0, None),
        "proc": partial(syscall, number(165, 40), text(b"p"), text(b"/tmp"), text(b"proc"), 0, None),
        "bind": partial(syscall, number(165, 40), text(b"/etc"), text(b"/tmp"), None, 4096, None),
        "remount /proc/sys": partial(syscall, number(165, 40), None, text(b"/proc/sys"), None, 32 | 4096, None),
        "remount / writable": partial(syscall, number(165, 40), None, text(b"/"), None, 32 | 4096, None),
        "umount /etc/resolv.conf": partial(syscall, number(166, 39), text(b"/etc/resolv.conf"), 2),
        "umount /proc": partial(syscall, number(166, 39), text(b"/proc"), 2),
        "pivot_root": partial(syscall, number(155, 41), text(b"/tmp"), text(b"/tmp")),
        "chroot": partial(syscall, number(161, 51), text(b"/tmp")),
        "fsopen": partial(syscall, 430, text(b"tmpfs"), 0),
        "open_tree": partial(syscall, 428, -100, text(b"/"), 1),
        "mount_setattr": partial(syscall, 442, -100, text(b"/"), 0, ctypes.create_string_buffer(32), 32),
        "a device node": partial(_node),
    }  # fmt: skip


def _node() -> int:
    os.mknod("/tmp/moat-node", 0o20666, os.makedev(1, 1))
    return os.open("/tmp/moat-node", os.O_RDONLY)


def _type_into_terminal(request: int) -> str:
    master, slave = pty.openpty()
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    letter = ctypes.create_string_buffer(b"x")
    if LIBC.syscall(ctypes.c_long(number(16, 29)), ctypes.c_long(slave), ctypes.c_ulong(request), letter) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return f"typed into a terminal {master}"


def _write(path: str) -> str:
    os.close(os.open(path, os.O_WRONLY))
    return "opened for writing"
