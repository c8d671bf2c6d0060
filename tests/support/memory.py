"""What processes hold, as root of the host sees it: arguments, environment, memory, and files that they have mapped.

/proc/PID/maps ─▶ each region ─ pagemap: which pages are there ─▶ mem       a file in it ─▶ map_files, whole
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PAGE = 4096
CHUNK = 16 * 1024 * 1024
LONGEST = 256  # of what is looked for
_REGION = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ (\S+) (\d+)\s*(.*)")
_THERE = re.compile(rb"[\x40-\xff]+")  # the last byte of an entry: in memory (bit 63), or swapped out (bit 62)


@dataclass(frozen=True)
class Region:
    """A part of a process's memory. file: device and inode of what is mapped there, "" for none."""

    start: int
    end: int
    file: str
    name: str


def running(word: str) -> list[int]:
    """Return the processes whose command line has a word."""
    return [pid for pid in _pids() if word.encode() in _read(pid, "cmdline")]


def beside(pid: int) -> list[int]:
    """Return the processes in the network namespace of another: all of its run's, the gate among them."""
    namespace = _namespace(pid)
    assert namespace not in (0, _namespace(os.getpid()))
    return [each for each in _pids() if _namespace(each) == namespace]


def where_held(pids: Iterable[int], *texts: str) -> list[str]:
    """Return each place where a process holds one of the texts, in words; as UTF-8 or UTF-16."""
    needles = [text.encode(coding) for text in texts for coding in ("utf-8", "utf-16-le")]
    seen: set[str] = set()
    return [place for pid in pids for place in _places(pid, needles, seen)]


def _places(pid: int, needles: list[bytes], seen: set[str]) -> Iterator[str]:
    for name in ("cmdline", "environ"):
        if _has(_read(pid, name), needles):
            yield f"{name} of {pid}"
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), contextlib.ExitStack() as stack:
        memory, pages = (stack.enter_context(Path(f"/proc/{pid}/{name}").open("rb", 0)) for name in ("mem", "pagemap"))
        for region in _regions(pid):
            if any(_has(data, needles) for data in _there(region, memory, pages)):
                yield f"memory of {pid}, {region.name or 'anonymous'}"
            if region.file and region.file not in seen:
                seen.add(region.file)
                if any(_has(data, needles) for data in _mapped(pid, region)):
                    yield f"{region.name}, mapped by {pid}"


def _regions(pid: int) -> Iterator[Region]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        match = _REGION.fullmatch(line)
        assert match, line
        start, end, _, device, inode, name = match.groups()
        if name not in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):  # the kernel's
            yield Region(int(start, 16), int(end, 16), f"{device}:{inode}" if inode != "0" else "", name)


def _there(region: Region, memory: BinaryIO, pages: BinaryIO) -> Iterator[bytes]:
    """Yield what is really there of a region: some are huge, and empty."""
    step = CHUNK // 8 * PAGE
    for start in range(region.start, region.end, step):
        count = min(step, region.end - start) // PAGE
        pages.seek(start // PAGE * 8)
        for found in _THERE.finditer(pages.read(count * 8)[7::8]):
            yield from _pieces(memory, start + found.start() * PAGE, start + found.end() * PAGE)


def _pieces(memory: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        memory.seek(start)
        try:
            data = memory.read(min(CHUNK, end - start))
        except OSError:  # it is gone by now, or a device's
            return
        if not data:
            return
        yield data
        # What lies on the border of two pieces is seen in the second.
        start += len(data) if start + len(data) >= end or len(data) <= LONGEST else len(data) - LONGEST


def _mapped(pid: int, region: Region) -> Iterator[bytes]:
    path = Path(f"/proc/{pid}/map_files/{region.start:x}-{region.end:x}")
    with contextlib.suppress(OSError), path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return
        before = b""
        while data := file.read(CHUNK):
            yield before + data
            before = data[-LONGEST:]


def _has(data: bytes, needles: list[bytes]) -> bool:
    return any(needle in data for needle in needles)


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _namespace(pid: int) -> int:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    return 0


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
