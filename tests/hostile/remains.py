"""What a run is made of on the host while it lives, and whether anything of it remains afterwards."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.installation import Installation

from hostile.sandbox import Place


@dataclass(frozen=True)
class Parts:
    """A live run. namespace: its network namespace's number. gate: its gate's process id on the host."""

    run_id: str
    namespace: int
    gate: int


def parts_of(made: Installation, place: Place, cli: int) -> Parts:
    """Find the parts of the newest run of an installation, which cli started."""
    runs = sorted((made.home / ".moat" / "runs").iterdir(), key=lambda path: path.stat().st_ctime)
    run_id = runs[-1].name
    gate = _container_pid(f"moat-{run_id}-gate") if place.runtime == "docker" else _gate_below(cli)
    return Parts(run_id, namespace_of(gate), gate)


def namespace_of(pid: int) -> int:
    """Return the number of a process's network namespace; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    return 0


def processes_in(namespace: int) -> list[int]:
    """Return all processes in a network namespace."""
    return [pid for pid in _pids() if namespace_of(pid) == namespace]


def remains(made: Installation, parts: Parts) -> list[str]:
    """Return, in words, what is left of a run that is over."""
    moat = made.home / ".moat"
    found = [f"process {pid}: {_command(pid)}" for pid in processes_in(parts.namespace)]
    found += [f"process {pid}: {_command(pid)}" for pid in _pids() if parts.run_id in _command(pid)]
    found += [f"container {name}" for name in _containers(parts.run_id)]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if parts.run_id in line or f"net:[{parts.namespace}]" in line]
    found += [str(path) for folder in ("doors", "inside") for path in (moat / folder).glob("*")]
    found += [str(path) for path in (made.home / "tmp").glob("*")]
    found += [str(path) for path in Path("/tmp").glob(f"*{parts.run_id}*")]
    return found


def sockets_of(pid: int) -> int:
    """Return how many sockets a process holds."""
    count = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(path.readlink()).startswith("socket:")
    return count


def descendants(pid: int) -> Iterator[int]:
    """Yield the children of a process, and theirs."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)


def _gate_below(pid: int) -> int:
    return next(child for child in descendants(pid) if "gate.py" in _command(child))


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _container_pid(name: str) -> int:
    return int(_docker("inspect", "--format", "{{.State.Pid}}", name))


def _containers(run_id: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return _docker("ps", "--all", "--filter", f"label=moat.run={run_id}", "--format", "{{.Names}}").split()
    return []


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False).stdout.strip()
