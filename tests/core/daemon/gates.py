"""Real gates for the daemon's tests: gate.py in a namespace of its own, as a runtime starts it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from moat.runtimes.gatelink import GATE_FLAGS, GATE_SOURCE, GateConfig


class Gate:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def event(self) -> dict[str, Any]:
        """Return the gate's next event; {} at its end."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        return dict(json.loads(line)) if line else {}

    async def leave(self) -> None:
        """End its input, as a launcher that ends does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()


@asynccontextmanager
async def a_gate(run_id: str, folder: Path, nonce: str) -> AsyncIterator[Gate]:
    """Start a gate that makes its own namespace and runs no command; ended afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *GATE_FLAGS, str(GATE_SOURCE),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(GateConfig(run_id=run_id, nonce=nonce, door=str(folder), place="outside").line())
    try:
        yield Gate(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
