"""The launcher's side of the gate: one JSON line each way over the gate's standard input and output.

Knows nothing of how the gate was started: a runtime brings a Wire (a child process, an attached container).

    launcher ──{"run_id", "nonce", "door", "place", "argv", …}──▶ gate     first line
             ◀── {"event": "open"} | {"event": "refused" | "unreached", "problem"} ──
             ◀── {"event": "started", "pid"} ── {"event": "exited", "code"} ──        only with argv
             ◀── {"event": "lost", "problem"} ──                                      the daemon is gone for good
             ── {"signal": 15} · {"resize": [rows, columns]} ──▶
             ── end of input: the launcher is gone; the gate kills the command and ends
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, Protocol

from moat.api.errors import SandboxFailed
from moat.api.light import dataclass

GATE_SOURCE = Path(__file__).with_name("gate.py")
GATE_FLAGS = ("-I", "-S")  # isolated and without site: nothing of the user's Python is loaded into the gate
_LOADED = "import os, sys; sys.path.append(os.path.dirname(sys.argv.pop(1))); import gate; "
OPEN_TIMEOUT_S = 45.0  # the gate gives up by itself after 15 s without an answer of the daemon's; this is the net below

Place = Literal["outside", "entered", "inside", "container"]  # entered: outside, and in its namespace already


def gate_program(then: str = "os._exit(gate.main())") -> tuple[str, ...]:
    """Return the command line of a gate on this machine: gate.py as a module, so that Python compiles it once only.

    then: what is done with the module `gate`; sys.argv[1:] are the arguments. It ends at once when all is told: the run
    waits for its end.
    """
    return (sys.executable, *GATE_FLAGS, "-c", _LOADED + then, str(GATE_SOURCE))


class DoorUnreached(SandboxFailed):
    """The gate ran but could not connect to the door: the engine is remote or in a virtual machine."""


class Wire(Protocol):
    """A running gate's standard input and output."""

    async def write(self, data: bytes) -> None:
        """Write to the gate's input. Raises OSError when it is gone."""
        ...

    async def readline(self) -> bytes:
        """Return the gate's next line of output, or b"" at its end."""
        ...

    async def close(self) -> None:
        """End the gate's input."""
        ...


@dataclass(frozen=True, slots=True)
class GateConfig:
    """The gate's first line.

    door: the door's folder as the gate sees it. argv: the command that it runs, None in a container.
    env: the command's whole environment. stdio: three descriptors of the gate's that become the command's.
    pass_fds: more descriptors that the command inherits. terminal: stdio is a terminal of the run's own.
    places: sockets beyond the door's own, as `places` names them.
    """

    run_id: str
    nonce: str = field(repr=False)
    door: str
    place: Place
    argv: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    stdio: tuple[int, int, int] | None = None
    pass_fds: tuple[int, ...] = ()
    terminal: bool = False
    places: tuple[tuple[str, str, str, int], ...] = ()

    def line(self) -> bytes:
        """Return the configuration as the gate reads it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields | {"env": dict(self.env)}).encode() + b"\n"


class GateLink:
    """A conversation with one gate: open once, then wait (one task), signal and resize (any), close."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def open(self, config: GateConfig | None, *, timeout_s: float = OPEN_TIMEOUT_S) -> None:
        """Hand over the configuration and wait until the daemon has opened the door. config: None where it has it.

        Raises DoorUnreached when the gate cannot reach the daemon, SandboxFailed when it is refused, dead or silent.
        """
        import asyncio  # not at the top: a gate is started before anything that takes long to load

        try:
            async with asyncio.timeout(timeout_s):
                if config is not None:
                    await self._wire.write(config.line())
                event = await self._event()
        except TimeoutError:
            raise SandboxFailed("the gate did not answer in time", hint="run: moat doctor") from None
        except OSError:
            raise SandboxFailed("the gate ended before it could be configured", hint="run: moat doctor") from None
        if event.get("event") != "open":
            raise _failure(event)

    async def started(self) -> int:
        """Return the process id of the command's supervisor once it is started. Raises SandboxFailed if it never is."""
        event = await self._event()
        if event.get("event") != "started":
            raise _failure(event)
        return int(event["pid"])

    async def wait(self) -> int:
        """Return the command's exit code. Raises SandboxFailed when the gate or the daemon is lost before."""
        event = await self._event()
        if event.get("event") != "exited":
            raise _failure(event)
        return int(event["code"])

    async def signal(self, number: int) -> None:
        """Send a signal to the command; nothing happens when it has ended."""
        await self._control({"signal": number})

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the run's terminal its size; nothing happens without one."""
        await self._control({"resize": [rows, columns]})

    async def close(self) -> None:
        """End the gate's input, so that it stops the command and ends. Safe to call twice."""
        with contextlib.suppress(OSError):
            await self._wire.close()

    async def _control(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            await self._wire.write(json.dumps(message).encode() + b"\n")

    async def _event(self) -> dict[str, Any]:
        line = await self._wire.readline()
        if not line:
            return {"event": "gone"}
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        return event if isinstance(event, dict) else {"event": "garbled"}


def _failure(event: Mapping[str, Any]) -> SandboxFailed:
    problem = str(event.get("problem", ""))
    match event.get("event"):
        case "unreached":
            return DoorUnreached(f"the gate cannot reach the daemon: {problem}", hint="run: moat doctor")
        case "refused":
            return SandboxFailed(f"the sandbox was refused: {problem}", hint="run: moat doctor")
        case "lost":
            return SandboxFailed(f"the run lost its daemon and was stopped: {problem}", hint="run: moat proxy status")
        case "failed":
            return SandboxFailed(f"the command could not be started: {problem}", hint="run: moat doctor")
        case "gone":
            return SandboxFailed("the gate ended unexpectedly; the command was stopped", hint="run: moat doctor")
    return SandboxFailed("the gate said something that is not its protocol", hint="run: moat doctor")
