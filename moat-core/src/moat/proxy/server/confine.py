"""What the worker gives up before it meets the first byte of a run: privileges, its memory's readers, most files.

Where the kernel has no Landlock, the rest still holds. Stdlib and the kernel's numbers only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import ssl
import struct
import sys
from pathlib import Path

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture (linux/syscalls)
_RULE_PATH_BENEATH, _VERSION_FLAG = 1, 1  # linux/landlock.h
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 5: 16}  # how many file rights each version knows, the lowest bits
_SCOPE_ABI, _SCOPE_ALL = 6, 0b11  # abstract unix sockets, signals
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

_SYSTEM = ("/etc", "/usr", "/lib", "/lib32", "/lib64", "/bin", "/opt", "/proc", "/dev", "/sys/devices/system/cpu",
           "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd",
           "/var/lib/ca-certificates")  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


def harden() -> None:
    """Allow no new privileges, no core file and no debugger; raise the limit on open files to the hard one."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tune_malloc() -> None:
    """Keep buffers of some 100 KiB on the heap: as mappings of their own they double the cost of bulk transfers."""
    mallopt = getattr(_libc, "mallopt", None)  # glibc only
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 8 * 1024 * 1024)
        mallopt(_M_TRIM_THRESHOLD, 32 * 1024 * 1024)


def readable_paths() -> tuple[str, ...]:
    """Return what the worker still needs to read: the system, Python, the packages, the system's certificates.

    Not the working directory, which `python -m` puts first on the path: it may be anything.
    """
    verify = ssl.get_default_verify_paths()
    named = [*_SYSTEM, sys.prefix, sys.base_prefix, *sys.path, str(Path(__file__).parents[3])]
    named += [path for path in (verify.cafile, verify.capath, verify.openssl_cafile, verify.openssl_capath) if path]
    here = str(Path.cwd())
    return tuple(dict.fromkeys(path for path in named if path not in ("", "/", here) and Path(path).exists()))


def confine(readable: tuple[str, ...]) -> bool:
    """Take away every file right but reading beneath readable (Landlock); False where the kernel has none.

    After the imports, and before other threads exist: it holds for the calling thread and those it starts.
    """
    abi = _libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if abi < 1:
        return False
    rights = (1 << max(count for version, count in _RIGHTS_BY_ABI.items() if version <= abi)) - 1
    attributes = struct.pack("=QQQ", rights, 0, _SCOPE_ALL if abi >= _SCOPE_ABI else 0)
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, 24 if abi >= _SCOPE_ABI else 8, 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(ruleset, path)
        return bool(_libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | _READ_DIR if Path(path).is_dir() else _READ_FILE
        rule = struct.pack("=Qi", rights, descriptor)
        _libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
