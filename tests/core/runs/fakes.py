"""A daemon and a runtime that remember what they were told, in one list, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from moat.api.errors import MoatError
from moat.api.runs import RunInfo
from moat.api.runtimes import DoorTicket, Readiness, Runtime, Sandbox, SandboxSpec, Stdio
from moat.daemon.client import DaemonClient
from moat.daemon.protocol import DoorInfo, RegisterRequest, RegisterResponse
from moat.paths import Home

TOKEN = "f" * 64


class FakeClient(DaemonClient):
    def __init__(self, home: Home, told: list[str], *, has_door: bool = True) -> None:
        super().__init__(home)
        self.told = told
        self.has_door = has_door
        self.end_failure: MoatError | None = None

    def register(self, request: RegisterRequest) -> RegisterResponse:
        self.told.append(f"register {request.name}")
        door = DoorInfo("/doors/x", "nonce") if self.has_door else None
        return RegisterResponse(request.run_id, TOKEN, 4321, door)

    def tell_container(self, token: str, container_id: str) -> None:
        self.told.append(f"created {container_id}")

    def end(self, token: str, exit_code: int | None) -> RunInfo:
        self.told.append(f"end {exit_code}")
        if self.end_failure is not None:
            raise self.end_failure
        return RunInfo("run_0123456789ab", "calm-otter", "fake", "permissive", (), "/srv/work", ("true",), "2026-01-01")


class FakeSandbox(Sandbox):
    """A command that ends when it is told to, or when a signal of dies_of comes."""

    def __init__(self, told: list[str], dies_of: tuple[int, ...] = ()) -> None:
        self.told = told
        self.dies_of = dies_of
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waited = asyncio.Event()
        self.signalled: asyncio.Queue[int] = asyncio.Queue()

    async def wait(self) -> int:
        self.waited.set()
        return await self.ended

    async def signal(self, number: int) -> None:
        self.told.append(f"signal {number}")
        self.signalled.put_nowait(number)
        if number in self.dies_of and not self.ended.done():
            self.ended.set_result(128 + number)

    async def resize(self, rows: int, columns: int) -> None:
        self.told.append(f"resize {rows} {columns}")

    async def close(self) -> None:
        self.told.append("close")


class FakeRuntime(Runtime):
    name = "fake"
    summary = "remembers"

    def __init__(self, told: list[str], *, sealed: bool = True) -> None:
        self.told = told
        self.sealed = sealed  # type: ignore[misc] # one fake stands for both kinds
        self.spec: SandboxSpec | None = None
        self.ticket: DoorTicket | None = None
        self.files: dict[str, str] = {}
        self.exit_code = 0
        self.loss: Exception | None = None
        self.caveat = ""
        self.failure: Exception | None = None
        self.hangs = False
        self.launching = asyncio.Event()

    async def readiness(self, image: str) -> Readiness:
        return Readiness(True, "always")

    async def launch(
        self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio, created: Callable[[str], Awaitable[None]]
    ) -> Sandbox:
        self.told.append("launch")
        self.spec, self.ticket = spec, ticket
        self.files = {mount.target: _text(mount.source) for mount in spec.mounts if mount.source.is_file()}
        self.launching.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        await created("box-1")
        sandbox = FakeSandbox(self.told)
        sandbox.caveat = self.caveat
        if self.loss is not None:
            sandbox.ended.set_exception(self.loss)
        else:
            sandbox.ended.set_result(self.exit_code)
        return sandbox


def _text(path: Path) -> str:
    return path.read_text(errors="replace")  # one of them is no text
