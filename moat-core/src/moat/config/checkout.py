"""Takes a settings file from a folder that belongs to nobody in particular: opened once, read once, never again.

What is checked, hashed, shown and used are the same bytes, whatever happens to the file meanwhile.
"""

from __future__ import annotations

import os
import stat
from dataclasses import field
from pathlib import Path

from moat.api.errors import UsageError
from moat.api.light import dataclass

LIMIT_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Checkout:
    """A file as it was when it was opened. path: the real one, every link followed."""

    path: Path
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """The hash of what was read, in hex."""
        import hashlib

        return hashlib.sha256(self.data).hexdigest()


def take(folder: Path, name: str) -> Checkout | None:
    """Return the file called name in folder; None where there is none.

    Raises UsageError for what is no file, leads out of the folder, is too long, or cannot be read.
    """
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # a pipe must not wait
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UsageError(f"{path} is a link that leads nowhere", hint=f"run: ls -l {path}") from None
        return None
    except OSError as failure:
        problem = f"{path} cannot be read: {os.strerror(failure.errno or 0)}"
        raise UsageError(problem, hint=f"run: ls -l {path}") from None
    try:
        return _read(path, folder, descriptor)
    except OSError as failure:
        raise UsageError(f"{path} cannot be read: {os.strerror(failure.errno or 0)}") from None
    finally:
        os.close(descriptor)


def _read(path: Path, folder: Path, descriptor: int) -> Checkout:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise UsageError(f"{path} is no file", hint=f"run: ls -l {path}")
    real = Path(f"/proc/self/fd/{descriptor}").readlink()
    if not real.is_relative_to(folder.resolve()):
        problem = f"{path} is a link that leads out of its folder"
        raise UsageError(problem, hint="put the file itself there, or say --ignore-file")
    with open(descriptor, "rb", closefd=False) as file:  # a descriptor is no path
        return Checkout(real, file.read(LIMIT_BYTES + 1))
