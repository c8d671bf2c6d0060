from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.errors import SandboxFailed
from moat.api.images import Images
from moat.cli.services import fetch_images
from moat.runs.plan import plan
from moat.runs.prepare import Prepared

from core.runs.fakes import FakeClient, FakeRuntime
from core.runs.plans import HOME, a_spec, some_facts
from core.runs.test_build import FakeImages


class Fetching(FakeRuntime):
    def images(self) -> Images:
        class Pulling(FakeImages):
            async def pull(this, image: str, told: object) -> None:  # self is the runtime
                if image == "absent":
                    raise SandboxFailed(f"docker could not pull {image}: denied")
                assert callable(told)
                told("Pull complete")
                self.told.append(image)

        return Pulling([])


def prepared(runtime: FakeRuntime, *absent: str) -> Prepared:
    facts = some_facts()
    return replace(Prepared(facts, plan(a_spec(), facts), runtime, FakeClient(HOME, [])), absent=absent)


def test_what_is_absent_is_fetched_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    runtime = Fetching([])

    fetch_images(prepared(runtime, "a:1", "b:2"))

    assert runtime.told == ["a:1", "b:2"]
    assert capsys.readouterr().err.splitlines() == [
        "moat: fetching a:1, once", "  Pull complete", "moat: fetching b:2, once", "  Pull complete",
    ]  # fmt: skip


def test_the_first_that_cannot_be_had_ends_it() -> None:
    runtime = Fetching([])

    with pytest.raises(SandboxFailed, match="could not pull absent"):
        fetch_images(prepared(runtime, "absent", "b:2"))

    assert runtime.told == []
