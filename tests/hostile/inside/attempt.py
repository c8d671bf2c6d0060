"""What every hostile attempt shares: try something, say how it ended. Standard library only; runs inside a sandbox.

An outcome is "done" and what was gained, the name of the errno that stopped it, or how the process that tried it died.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
from collections.abc import Callable

Outcomes = dict[str, str]
PATIENCE_S = 1.0
GIVE_UP_S = 8
LIBC = ctypes.CDLL(None, use_errno=True)
ON_ARM = platform.machine() == "aarch64"


def tried(attempt: Callable[[], object]) -> str:
    """Make an attempt and return its outcome."""
    try:
        gained = attempt()
    except OSError as problem:
        return errno.errorcode.get(problem.errno or 0, str(problem))
    except (ValueError, OverflowError) as problem:
        return f"not possible: {problem}"
    return f"done {gained}"


def tried_apart(attempt: Callable[[], object]) -> str:
    """Make an attempt in a child, so that whatever kills it, or what it changes, is not felt here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(GIVE_UP_S)
        with contextlib.suppress(BaseException):
            os.write(writer, tried(attempt).encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        outcome = answer.read().decode()
    _, status = os.waitpid(child, 0)
    return outcome or f"died of signal {status & 127}"


def syscall(number: int, *arguments: object) -> int:
    """Make a system call by number. Raises OSError as the kernel says."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = int(LIBC.syscall(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def number(on_intel: int, on_arm: int) -> int:
    """Return the number that a system call has here."""
    return on_arm if ON_ARM else on_intel
