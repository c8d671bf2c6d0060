"""The same calls by the doors that filters forget: 32-bit x86 (`int 0x80`) and x32 numbers. Nothing on Arm."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
from functools import partial

from hostile.inside.attempt import Outcomes, syscall, tried_apart

ON_I386 = {"socket vsock": (359, 40, 1, 0), "socket packet": (359, 17, 3, 0), "socket netlink audit": (359, 16, 3, 9),
           "keyctl": (288, 0, -4, 1), "io_uring_setup": (425, 4, 0, 0), "bpf": (357, 0, 0, 0),
           "unshare": (310, 0x10000000, 0, 0),
           "perf_event_open": (336, 0, 0, -1), "userfaultfd": (374, 1, 0, 0), "getpid": (20, 0, 0, 0)}  # fmt: skip
X32 = 0x40000000
FAULTS = (errno.EFAULT, errno.EINVAL)  # the kernel looked at the arguments: the filter let the call through


def everything() -> dict[str, Outcomes]:
    """Try each; a call that the kernel began to look at counts as done."""
    if platform.machine() != "x86_64":
        return {"compat": {}}
    outcomes = {f"int 0x80 {name}": tried_apart(partial(_interrupt, *words)) for name, words in ON_I386.items()}
    outcomes["x32 socket vsock"] = tried_apart(partial(syscall, X32 | 41, 40, 1, 0))
    outcomes["x32 keyctl"] = tried_apart(partial(syscall, X32 | 250, 0, -4, 1))
    return {"compat": outcomes}


def _interrupt(call: int, first: int, second: int, third: int) -> str:
    code = b"\x53" + b"".join(
        opcode + (word & 0xFFFFFFFF).to_bytes(4, "little")
        for opcode, word in ((b"\xb8", call), (b"\xbb", first), (b"\xb9", second), (b"\xba", third))
    )
    code += b"\x31\xf6\x31\xff\xcd\x80\x5b\x48\x63\xc0\xc3"  # esi = edi = 0; int 0x80; restore rbx; widen; return
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = int(ctypes.CFUNCTYPE(ctypes.c_long)(address)())
    if result < 0 and -result not in FAULTS:
        raise OSError(-result, os.strerror(-result))
    return f"answered {result}"
