"""The contract finds what it is there to find: each broken runtime, a plugin like any, fails the test of its fault."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moat.runtimes.process import Process
from moat.testing import RuntimeContract, place
from support.plugged import plugged

SOURCE = """
from dataclasses import replace
from moat.api import hookimpl
from moat.runtimes.process import Process


class Good(Process):
    name = "good"


class Leaky(Process):
    name = "leaky"

    async def launch(self, spec, ticket, stdio, created):
        return await super().launch(replace(spec, env={**spec.env, "STRAY": "1"}), ticket, stdio, created)


class Mixing(Process):
    name = "mixing"

    async def launch(self, spec, ticket, stdio, created):
        return await super().launch(spec, ticket, replace(stdio, stderr=stdio.stdout), created)


class Cheerful(Process):
    name = "cheerful"

    async def launch(self, spec, ticket, stdio, created):
        sandbox = await super().launch(spec, ticket, stdio, created)
        wait = sandbox.wait

        async def waited():
            await wait()
            return 0

        sandbox.wait = waited
        return sandbox


class Boasting(Process):
    name, sealed = "boasting", True


@hookimpl
def moat_runtimes():
    return [Good(), Leaky(), Mixing(), Cheerful(), Boasting()]
"""


@pytest.fixture(scope="module", autouse=True)
def _program() -> Iterator[None]:
    """Have places start a moat that knows the broken runtimes."""
    with plugged("moat-runtime-broken", SOURCE, {"moat": {"broken": "moat_runtime_broken"}}) as made:
        patch = pytest.MonkeyPatch()
        patch.setattr(sys, "executable", str(Path(made.moat).with_name("python")))
        yield
        patch.undo()


def outcome(kind: str, test: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return "kept", or what a test of the contract finds wrong with a runtime."""
    monkeypatch.setattr(place, "LIMIT_S", 5.0)
    fields: dict[str, Any] = {"runtime": type(kind.title(), (Process,), {"name": kind})()}
    contract: type[RuntimeContract] = type("Contract", (RuntimeContract,), fields)
    contract.setup_class()
    try:
        getattr(contract(), test)()
    except AssertionError as found:
        return str(found) or "failed"
    finally:
        contract.teardown_class()
    return "kept"


FAULTS = [
    ("leaky", "test_the_environment_is_the_plans_and_nothing_else"),
    ("mixing", "test_streams_are_apart_and_come_as_they_are_written"),
    ("cheerful", "test_the_exit_code_is_the_commands"),
    ("boasting", "test_it_says_whether_it_is_sealed"),
]


@pytest.mark.parametrize(("kind", "test"), FAULTS, ids=[kind for kind, _ in FAULTS])
def test_a_fault_is_found_by_its_test(kind: str, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(kind, test, monkeypatch) != "kept"
    assert outcome("good", test, monkeypatch) == "kept"
