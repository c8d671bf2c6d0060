"""What can hold a run: a small ABC per runtime, and the values that go in.

RunPlan ──▶ SandboxSpec ─┐
daemon  ──▶ DoorTicket  ─┼─▶ Runtime.launch ──▶ Sandbox: wait · signal · resize · close
CLI     ──▶ Stdio       ─┘                         └─ execute ──▶ Execution: the same four, for one more command in it
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from moat.api.container import Limits, Mount
from moat.api.errors import SandboxFailed
from moat.api.light import dataclass
from moat.api.services import Sidecar

if TYPE_CHECKING:
    from moat.api.images import Images


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Everything a runtime needs to make one sandbox.

    env: the whole environment inside; what the user put there may be a secret, so it is never repeated.
    mounts: workspace first, then files of ours (read-only), then the user's.
    workdir, home: absolute paths inside. image: used by container runtimes only. services: stand beside the command, in
    its network, ready before it starts and gone with it; only where `Runtime.holds_services`.
    terminal: rows and columns when the run gets a terminal of its own, else None.
    """

    run_id: str
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    mounts: tuple[Mount, ...]
    workdir: str
    home: str
    image: str = ""
    terminal: tuple[int, int] | None = None
    allow_sockets: bool = False
    limits: Limits = field(default_factory=Limits)
    services: tuple[Sidecar, ...] = ()


@dataclass(frozen=True, slots=True)
class DoorTicket:
    """How a gate reaches the daemon. folder: the run's own door folder, with `door.sock` and the sockets of places.

    nonce: one-time, handed to the gate on its standard input. proxy_url: for runtimes without a door, token included.
    listen: for engines that no door reaches: has the daemon listen on an address of this machine and returns the
    proxy's URL there, token included. None where that is not to be had. places: sockets beyond the door's own that lead
    to endpoints: name, kind, host or file, port. told: says to the user, in a line, what is waited for. printed: takes
    what a service printed, for `moat logs --service`: its name, "stdout" or "stderr", and some bytes.
    """

    run_id: str
    folder: Path
    nonce: str = field(repr=False)
    proxy_url: str = field(default="", repr=False)
    listen: Callable[[str], Awaitable[str]] | None = field(default=None, repr=False)
    places: tuple[tuple[str, str, str, int], ...] = ()
    told: Callable[[str], None] = field(default=lambda _: None, repr=False)
    printed: Callable[[str, Literal["stdout", "stderr"], bytes], None] = field(default=lambda *_: None, repr=False)


@dataclass(frozen=True, slots=True)
class Stdio:
    """File descriptors of the CLI that become the command's; where terminal is set, the CLI's own pseudo-terminal."""

    stdin: int
    stdout: int
    stderr: int


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a runtime can be used here; if not, why, and what to type."""

    is_ready: bool
    detail: str
    hint: str = ""


class Execution(ABC):
    """A running command. Leaving it (close) stops whatever is left of it."""

    @abstractmethod
    async def wait(self) -> int:
        """Wait for the command's end and return its exit code (128 + n for signal n).

        Raises SandboxFailed when the gate is lost before that.
        """

    @abstractmethod
    async def signal(self, number: int) -> None:
        """Send a signal to the command; nothing happens when it has ended."""

    @abstractmethod
    async def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size; does nothing without one."""

    @abstractmethod
    async def close(self) -> None:
        """Kill what is left and remove everything that was made for it. Safe to call twice."""


class Sandbox(Execution):
    """A run's command, and what holds it.

    caveat: what this sandbox cannot promise, for the user to read; "" when it is sealed as its runtime says.
    """

    container_id: str = ""
    caveat: str = ""

    async def execute(self, argv: tuple[str, ...], stdio: Stdio, terminal: tuple[int, int] | None) -> Execution:
        """Start one more command in this sandbox, sealed exactly as the run's own, and as the same user.

        stdio: the caller closes its copies once this returns. terminal: rows and columns where the command gets one.
        It ends with the sandbox; the sandbox does not end with it. Raises SandboxFailed. Default: refuses, which is
        right for every runtime that cannot promise the same seal.
        """
        del argv, stdio, terminal
        raise SandboxFailed(
            "this runtime cannot start another command in a live run under the same seal",
            hint="use --runtime docker, or give the run a terminal and: moat attach RUN",
        )


class Runtime(ABC):
    """A way to hold a run.

    sealed: the runtime gives the run a namespace without any way out but its door. door: False where a sealed runtime
    keeps the run in a network of its own instead, with the proxy's address and a token; each sandbox then has a caveat.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    sealed: ClassVar[bool] = True
    door: ClassVar[bool] = True
    needs_image: ClassVar[bool] = False

    @abstractmethod
    async def readiness(self, image: str) -> Readiness:
        """Say whether launch could work here now, quickly and without making anything."""

    def begun(self) -> AbstractContextManager[None]:
        """Begin, without waiting, what any launch by this process needs, for as long as the block lasts.

        Entered before the run is planned; whether launch follows is not known yet. Nothing of it may be left when the
        block, or the process, ends. Default: nothing.
        """
        return nullcontext()

    def is_proved(self) -> bool:
        """Say whether what has begun shows already that launch will work, so that `readiness` need not be asked.

        Waits for what has begun, and has no event loop. Default: it shows nothing.
        """
        return False

    def expect(self, ticket: DoorTicket) -> str:
        """Do, without waiting, what can be done as soon as a run is registered; its launch follows.

        Returns what `created` would be told, if that is known, "" (the default) if not. It is not called for every
        run, so launch must do what it does. What fails is for launch to tell.
        """
        del ticket
        return ""

    def provide(self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio) -> None:
        """Do, without waiting, what launch, which follows, would do with the same. Default: nothing.

        Called after `expect`, where that returned something: `created` has been told, and whatever is mounted is there.
        The command may start before launch is called, but not before the door is open. Raises like launch.
        """
        del spec, ticket, stdio

    async def unenforced(self, limits: Limits) -> tuple[str, ...]:
        """Return the names of those limits that cannot be enforced here; a run that asks for one is refused.

        Asked before anything is made. Default: none can.
        """
        return limits.names()

    def images(self) -> Images | None:
        """Return what makes images of `dependencies`, None (the default) where the runtime has no such thing."""
        return None

    def holds_services(self) -> bool:
        """Whether `SandboxSpec.services` are started; a run that has some is refused where not. Default: no."""
        return False

    @abstractmethod
    async def launch(
        self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio, created: Callable[[str], Awaitable[None]]
    ) -> Sandbox:
        """Make the sandbox, hand its door over, wait for the daemon to open it, start the command.

        created is awaited with the container's id (a process id where there is none) before the command starts.
        Raises SandboxFailed when the run is not sealed, and leaves nothing behind.
        """

    async def reap(self, run_id: str) -> None:
        """Remove what a run left whose CLI and gate are both gone. Called by the daemon; default: nothing to remove."""
        del run_id

    async def pulse(self, run_id: str) -> bool | None:
        """Say whether the run's sandbox still exists, quickly: False only when it certainly does not, None if unknown.

        Asked by the daemon now and then. Default: True, since a gate that is there says as much.
        """
        del run_id
        return True
