"""Makes this process keep its secrets to itself: no core file, no ptrace, nothing readable by others. Linux only."""

from __future__ import annotations

import ctypes
import os
import resource

PR_SET_DUMPABLE = 4  # prctl(2)
WANTED_DESCRIPTORS = 65_536  # five sockets a run and many clients


def harden() -> None:
    """Apply to this process. Raises OSError when the kernel refuses: a daemon that leaks must not start."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this process cannot be made undumpable")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, WANTED_DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
