from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.container import Limits
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, Execution, Readiness, Runtime, Sandbox, SandboxSpec, Stdio


def test_a_ticket_shows_neither_nonce_nor_token() -> None:
    ticket = DoorTicket("run_000000000000", Path("/m"), "s3cr3t-nonce", "http://moat:s3cr3t@127.0.0.1:1")

    assert "s3cr3t" not in repr(ticket)


def test_a_runtime_is_two_methods_and_a_sandbox_four() -> None:
    assert Runtime.__abstractmethods__ == {"readiness", "launch"}
    assert Sandbox.__abstractmethods__ == Execution.__abstractmethods__ == {"wait", "signal", "resize", "close"}


async def test_a_sandbox_starts_no_other_command_unless_its_runtime_promises_the_seal() -> None:
    class Plain(Sandbox):
        async def wait(self) -> int:
            return 0

        async def signal(self, number: int) -> None: ...

        async def resize(self, rows: int, columns: int) -> None: ...

        async def close(self) -> None: ...

    with pytest.raises(SandboxFailed, match="under the same seal"):
        await Plain().execute(("true",), Stdio(0, 1, 2), None)


def test_a_runtime_is_sealed_unless_it_says_otherwise() -> None:
    assert Runtime.sealed
    assert not Runtime.needs_image


def test_a_specification_does_not_repeat_what_the_user_set() -> None:
    spec = SandboxSpec("run_000000000000", "x", ("true",), {"MINE": "s3cr3t"}, (), "/workspace", "/home/moat")

    assert "s3cr3t" not in repr(spec)


async def test_a_runtime_enforces_no_limit_unless_it_says_so() -> None:
    class Plain(Runtime):
        name, summary = "plain", "nothing of its own"

        async def readiness(self, image: str) -> Readiness:
            return Readiness(True, image)

        async def launch(self, *parts: object) -> Sandbox:
            raise NotImplementedError

    assert await Plain().unenforced(Limits(pids=1)) == ("pids",)
    assert await Plain().unenforced(Limits()) == ()
