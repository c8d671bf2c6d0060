"""Whether bytes hold other bytes, as fast as the machine can tell: the C library's memmem(3) for long ones.

It looks at many bytes at a time where CPython's own search looks at one; below some kilobytes calling it costs more.
"""

from __future__ import annotations

import ctypes

FROM_BYTES = 4_096  # measured: about where the call is paid for


def _load() -> ctypes._NamedFuncPointer | None:
    function = getattr(ctypes.CDLL(None), "memmem", None)  # not in POSIX.1-2017; glibc, musl and macOS have it
    if function is not None:
        function.restype = ctypes.c_void_p
        function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    return function


_memmem = _load()


def holds(data: bytes, needle: bytes) -> bool:
    """Return whether needle stands in data."""
    if len(data) < FROM_BYTES or _memmem is None:
        return needle in data
    return _memmem(data, len(data), needle, len(needle)) is not None
