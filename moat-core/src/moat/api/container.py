"""What a run must find inside, and how much it may use. Values only; the runtimes make them real."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TypeVar

from moat.api.errors import PlanConflict
from moat.api.light import dataclass

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path shown inside a run. source: absolute host path. target: absolute path inside."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a run may use; 0 and an empty mapping mean that nothing is asked for.

    ulimits: name as in `ulimit` and the Engine API ("nofile", "core") → soft and hard limit, -1 for none.
    """

    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0
    ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Return what is asked for: "memory", "cpus", "pids", and "ulimits.NAME" for each of those."""
        asked = {"memory": self.memory_bytes, "cpus": self.cpus, "pids": self.pids}
        return (*(name for name, value in asked.items() if value), *(f"ulimits.{name}" for name in self.ulimits))


@dataclass(frozen=True, slots=True)
class ContainerSetup:
    """What one contributor wants inside. files: absolute path inside → contents, read-only there. Never a secret."""

    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()


def merge(contributions: Iterable[tuple[str, ContainerSetup]]) -> ContainerSetup:
    """Join setups, each with its contributor's name; the order does not matter.

    Raises PlanConflict, naming both contributors, when two want different values for one variable, file or target.
    """
    env: dict[str, tuple[str, str]] = {}
    files: dict[str, tuple[str, str]] = {}
    mounts: dict[str, tuple[str, Mount]] = {}
    for owner, setup in contributions:
        for name, value in setup.env.items():
            _claim(env, "variable", name, owner, value)
        for path, text in setup.files.items():
            _claim(files, "file", path, owner, text)
        for mount in setup.mounts:
            _claim(mounts, "mount", mount.target, owner, mount)
    return ContainerSetup(
        env={name: value for name, (_, value) in sorted(env.items())},
        files={path: text for path, (_, text) in sorted(files.items())},
        mounts=tuple(mount for _, (_, mount) in sorted(mounts.items())),
    )


def _claim(taken: dict[str, tuple[str, T]], what: str, key: str, owner: str, value: T) -> None:
    other, present = taken.setdefault(key, (owner, value))
    if present != value:
        raise PlanConflict(f"{what} {key} is wanted differently by {other} and {owner}", hint="drop one of the two")
