"""What an installation holds at a moment: processes, namespaces, descriptors, files, doors. Compared around faults.

Containers are not counted: no fault here needs an engine (tests/hostile/remains.py looks for those).
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hostile.remains import descendants, namespace_of
from moat.daemon.client import DaemonClient
from moat.daemon.process import start_time
from moat.paths import Home
from moat.runtimes import gate
from support.installation import eventually

GATE = str(gate.__file__).encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """daemons, workers: processes of this home. gates: of this test, and those that nobody minds. namespaces: of
    networks, of gates and tests.

    descriptors: of daemon and worker, by kind. drafts: half-written files. temporary: files in the temp folders.
    """

    daemons: int
    workers: int
    gates: int
    namespaces: int
    descriptors: dict[str, int] = field(compare=False)
    drafts: tuple[str, ...]
    temporary: tuple[str, ...]
    doors: int

    def is_within(self, other: Seen) -> bool:
        """Whether there is nothing more than before; a connection that was under way then may be over."""
        kinds = self.descriptors.keys() | other.descriptors.keys()
        fewer = all(self.descriptors.get(kind, 0) <= other.descriptors.get(kind, 0) for kind in kinds)
        return fewer and self == other


class Counts:
    """Looks at one installation."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def now(self) -> Seen:
        health = DaemonClient(self._home).health()
        found: Counter[str] = Counter()
        for pid in (health.pid, health.worker_pid):
            found.update(_descriptors(pid))
        below = set(descendants(os.getpid()))
        gates = [pid for pid in _processes() if GATE in _words(pid) and (pid in below or _parent(pid) == 1)]
        return Seen(
            daemons=len(self.daemons()),
            workers=len(self._ours(b"moat.proxy.server.worker")),
            gates=len(gates),
            namespaces=len({_namespace(pid) for top in (os.getpid(), *gates) for pid in (top, *descendants(top))}),
            descriptors=dict(found),
            drafts=tuple(sorted(each.name for each in self._home.root.rglob(".*.new"))),
            temporary=tuple(sorted(self._temporary())),
            doors=len(list(self._home.root.glob("doors/*"))),
        )

    def daemons(self) -> list[int]:
        """Return every daemon that was started for this home, and lives."""
        return self._ours(b"moat.daemon.main")

    def _ours(self, program: bytes) -> list[int]:
        root = str(self._home.root).encode()
        commands = {pid: b"\0".join(_words(pid)) for pid in _processes()}
        return [pid for pid, words in commands.items() if program in words and root in words]

    def _temporary(self) -> Iterator[str]:
        """Yield what lies in the test's own temp folder, and what names a run of this home in the machine's."""
        if tempfile.gettempdir() != "/tmp":
            yield from (each.name for each in Path(tempfile.gettempdir()).iterdir())
        for run in (self._home.root / "runs").glob("*"):
            yield from (each.name for each in Path("/tmp").glob(f"*{run.name}*"))

    def become(self, wanted: Seen) -> None:
        """Wait until everything is what it was; connections of a moment ago may still be closing."""
        eventually(f"{wanted} instead of {self.now()}", lambda: self.now().is_within(wanted), 20)


def _descriptors(pid: int) -> list[str]:
    kinds = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kinds.append(str(link.readlink()).partition(":")[0])
        except OSError:
            continue
    return ["file" if kind.startswith("/") else kind for kind in kinds]


def _processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and start_time(int(each.name))]


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _namespace(pid: int) -> int:
    return namespace_of(pid) or namespace_of(os.getpid())  # one that is gone has none of its own
