"""What an installation holds at a moment: processes, tasks, namespaces, containers, descriptors, files, doors.

Compared around faults; without a daemon too, which is how every installation ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hostile.remains import descendants, namespace_of
from moat.api.errors import DaemonError, MoatError
from moat.daemon.client import DaemonClient
from moat.daemon.process import start_time
from moat.paths import Home
from moat.runtimes import gate
from moat.runtimes.docker_config import HOME_LABEL, labels
from support.docker_place import docker
from support.installation import eventually

GATE = str(gate.__file__).encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """daemons, workers: processes of this home. gates: of this test, and those that nobody minds. namespaces: of
    networks, of gates and tests. containers: and networks that an engine has of this home.

    tasks: of the daemon. descriptors: of daemon and worker, by kind. drafts: half-written files. temporary: files in
    the temp folders.
    """

    daemons: int
    workers: int
    gates: int
    namespaces: int
    containers: tuple[str, ...]
    tasks: int = field(compare=False)
    descriptors: dict[str, int] = field(compare=False)
    drafts: tuple[str, ...]
    temporary: tuple[str, ...]
    doors: int

    def is_within(self, other: Seen) -> bool:
        """Whether there is nothing more than before; a connection that was under way then may be over."""
        kinds = self.descriptors.keys() | other.descriptors.keys()
        fewer = all(self.descriptors.get(kind, 0) <= other.descriptors.get(kind, 0) for kind in kinds)
        return fewer and self.tasks <= other.tasks and self == other


class Counts:
    """Looks at one installation."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def now(self) -> Seen:
        """Look, once the daemon has opened what it opens in its first moments: its audit, where there can be one."""
        if self.daemons():
            with contextlib.suppress(MoatError):
                DaemonClient(self._home).seal()
        return self._seen()

    def _seen(self) -> Seen:
        found: Counter[str] = Counter()
        tasks = 0
        if self.daemons():
            health = DaemonClient(self._home).health()
            tasks = health.task_count
            for pid in (health.pid, health.worker_pid):
                found.update(_descriptors(pid))
        below = set(descendants(os.getpid()))
        gates = [pid for pid in _processes() if GATE in _words(pid) and (pid in below or _parent(pid) == 1)]
        return Seen(
            daemons=len(self.daemons()),
            workers=len(self._ours(b"moat.proxy.server.worker")),
            gates=len(gates),
            namespaces=len({_namespace(pid) for top in (os.getpid(), *gates) for pid in (top, *descendants(top))}),
            containers=tuple(sorted(self._containers())),
            tasks=tasks,
            descriptors=dict(found),
            drafts=self._drafts(),
            temporary=tuple(sorted(self._temporary())),
            doors=len(list(self._home.root.glob("doors/*"))),
        )

    def _drafts(self) -> tuple[str, ...]:
        """Return the drafts that stay: a daemon that lives writes one now and then, and is done with it at once."""
        found = {each.name for each in self._home.root.rglob(".*.new")}
        if found:
            time.sleep(0.2)
            found &= {each.name for each in self._home.root.rglob(".*.new")}
        return tuple(sorted(found))

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

    def _containers(self) -> Iterator[str]:
        """Yield what the engine, if there is one, has of this home."""
        if shutil.which("docker") is not None:
            ours = ("--filter", f"label={HOME_LABEL}={labels('', self._home.root)[HOME_LABEL]}")
            yield from docker("ps", "--all", *ours, "--format", "{{.Names}}").split()
            yield from docker("network", "ls", *ours, "--format", "{{.Name}}").split()

    def become(self, wanted: Seen) -> None:
        """Wait until everything is what it was; connections of a moment ago may still be closing."""
        seen: list[Seen] = []
        try:
            eventually("what was before", lambda: self._is_within(wanted, seen), 30)
        except AssertionError:
            raise AssertionError(f"{wanted} has become {seen[-1]}") from None

    def _is_within(self, wanted: Seen, seen: list[Seen]) -> bool:
        try:
            seen.append(self._seen())
        except (DaemonError, OSError):  # it leaves just now
            return False
        return seen[-1].is_within(wanted)


@asynccontextmanager
async def none_left() -> AsyncIterator[None]:
    """Have a block leave no task and no descriptor in the test's own process."""
    await asyncio.to_thread(os.getpid)  # the thread is there now
    before = (len(asyncio.all_tasks()), len(_descriptors(os.getpid())))
    yield
    assert (len(asyncio.all_tasks()), len(_descriptors(os.getpid()))) == before


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
