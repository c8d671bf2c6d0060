"""What an installation holds at a moment: processes, descriptors, files, doors. Compared before and after a fault."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from moat.daemon.client import DaemonClient
from moat.daemon.process import start_time
from moat.paths import Home
from support.installation import eventually


@dataclass(frozen=True, slots=True)
class Seen:
    """daemons: processes of this home. descriptors: of daemon and worker, by kind. drafts: half-written files."""

    daemons: int
    descriptors: dict[str, int]
    drafts: tuple[str, ...]
    doors: int

    def is_within(self, other: Seen) -> bool:
        """Whether there is nothing more than before; a connection that was under way then may be over."""
        kinds = self.descriptors.keys() | other.descriptors.keys()
        fewer = all(self.descriptors.get(kind, 0) <= other.descriptors.get(kind, 0) for kind in kinds)
        return fewer and (self.daemons, self.drafts, self.doors) == (other.daemons, other.drafts, other.doors)


class Counts:
    """Looks at one installation."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def now(self) -> Seen:
        health = DaemonClient(self._home).health()
        found: Counter[str] = Counter()
        for pid in (health.pid, health.worker_pid):
            found.update(_descriptors(pid))
        drafts = tuple(sorted(each.name for each in self._home.root.rglob(".*.new")))
        doors = len(list(self._home.root.glob("doors/*")))
        return Seen(len(self.daemons()), dict(found), drafts, doors)

    def daemons(self) -> list[int]:
        """Return every daemon that was started for this home, and lives."""
        return [pid for pid in _processes() if str(self._home.root).encode() in _words(pid)]

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
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return words if any(b"moat.daemon.main" in word for word in words) else []
