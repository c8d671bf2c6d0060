"""The runtime "bubblewrap": a sealed run without any engine or image, in the host's own system, as root or as a user.

    outside (default)  gate ─ its own network namespace ─ bwrap ─ pid, mount, user namespaces ─ command
    inside             bwrap ─ all namespaces ─ gate, undumpable ─ command      where AppArmor leaves nothing better

Which one is found out by trying, or said by MOAT_BUBBLEWRAP_GATE. This module is imported whenever runtimes are listed;
what takes an event loop is imported when a run needs it (`bubblewrap_launch`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from moat.api.container import Limits
from moat.api.errors import RuntimeUnavailable
from moat.api.runtimes import DoorTicket, Readiness, Runtime, Sandbox, SandboxSpec, Stdio
from moat.runtimes.ahead import GateAhead, not_started, trial_argv

if TYPE_CHECKING:
    from moat.runtimes.bubblewrap_trial import Found


class Bubblewrap(Runtime):
    """Sealed runs with bwrap."""

    name = "bubblewrap"
    summary = "this system's own programs, in namespaces made by bwrap; needs no image"

    def __init__(self) -> None:
        self._found: Found | None = None
        self._ahead: GateAhead | None = None

    async def readiness(self, image: str) -> Readiness:
        """Try what launch needs, with `true` as the command."""
        del image
        return (await self._try()).readiness

    async def unenforced(self, limits: Limits) -> tuple[str, ...]:
        """Return all but ulimits: there is no control group of the run's own."""
        if not limits.names():
            return ()
        from moat.runtimes import rlimits

        return rlimits.unenforced(limits)

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Have a gate ahead of the run, that tries bwrap meanwhile."""
        if (argv := trial_argv()) is not None:
            with contextlib.suppress(OSError):  # told by readiness or launch, which try again
                self._ahead = GateAhead(argv if self._found is None else ())
        try:
            yield
        finally:
            if self._ahead is not None:
                self._ahead.close()
                self._ahead = None

    def is_proved(self) -> bool:
        """Whether the gate ahead has tried bwrap, and it works."""
        if self._found is None and self._ahead is not None:
            from moat.runtimes import bubblewrap_trial

            self._found = bubblewrap_trial.found_ahead(self._ahead)
        return self._found is not None and self._found.place is not None

    def expect(self, ticket: DoorTicket) -> str:
        """Have the gate ahead open the run's door."""
        if self._ahead is None or self._found is None or self._found.place != "outside":
            return ""
        with contextlib.suppress(OSError):  # told by launch
            self._ahead.open_door(ticket)
        return str(self._ahead.child.pid)

    def provide(self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio) -> None:
        """Give the gate ahead what it runs as soon as its door is open."""
        if self._ahead is not None:
            from moat.runtimes import bubblewrap_launch

            bubblewrap_launch.provide(self._ahead, spec, ticket, stdio)

    async def launch(
        self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio, created: Callable[[str], Awaitable[None]]
    ) -> Sandbox:
        """Start the gate, if none is there ahead, wait for the door, start the command."""
        found = await self._try()
        if found.place is None:
            raise RuntimeUnavailable(found.readiness.detail, hint=found.readiness.hint)
        from moat.runtimes import bubblewrap_launch

        gate = await self._gate() if found.place == "outside" else None
        return await bubblewrap_launch.launch(gate, spec, ticket, stdio, created)

    async def _gate(self) -> GateAhead:
        """Return a gate that waits for a run. Raises SandboxFailed."""
        gate, self._ahead = self._ahead, None
        try:
            gate = gate or GateAhead()
        except OSError as failure:
            raise not_started(failure) from None
        if problem := await gate.verdict():
            gate.close()
            raise not_started(problem)
        return gate

    async def _try(self) -> Found:
        """Try once per process: readiness and launch need the same answer."""
        if self._found is None:
            from moat.runtimes import bubblewrap_trial

            self._found = await bubblewrap_trial.find_place(ahead=self._ahead)
        return self._found
