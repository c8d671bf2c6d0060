from __future__ import annotations

import os
import platform

import pytest
from moat.runtimes import syscalls

NEVER = (
    "io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key", "bpf",
    "perf_event_open", "userfaultfd", "mount", "umount2", "unshare", "setns", "pivot_root", "chroot", "kexec_load",
    "init_module", "finit_module", "open_by_handle_at", "pidfd_getfd", "kcmp", "syslog", "swapon", "reboot", "acct",
    "ioperm", "iopl", "fsopen", "open_tree", "move_mount", "mount_setattr", "fanotify_init", "quotactl", "settimeofday",
)  # fmt: skip


def test_what_reaches_past_a_namespace_is_not_on_the_list() -> None:
    assert set(syscalls.names()) & set(NEVER) == set()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_numbers_are_unique_and_within_the_range(machine: str) -> None:
    numbers = syscalls.numbers(machine)

    assert len(set(numbers.values())) == len(numbers)
    assert max(numbers.values()) <= syscalls.HIGHEST


@pytest.mark.parametrize(
    ("name", "x86_64", "aarch64"),
    [
        ("read", 0, 63),
        ("openat", 257, 56),
        ("execve", 59, 221),
        ("socket", 41, 198),
        ("ioctl", 16, 29),
        ("clone3", 435, 435),
    ],
)
def test_well_known_numbers(name: str, x86_64: int, aarch64: int) -> None:
    assert syscalls.numbers("x86_64")[name] == x86_64
    assert syscalls.numbers("aarch64")[name] == aarch64


def test_old_calls_exist_only_where_the_architecture_has_them() -> None:
    assert "fork" in syscalls.numbers("x86_64")
    assert "fork" not in syscalls.numbers("aarch64")


def test_numbers_are_those_of_this_kernel() -> None:
    import ctypes

    number = syscalls.numbers(platform.machine())["getpid"]

    assert ctypes.CDLL(None).syscall(number) == os.getpid()
