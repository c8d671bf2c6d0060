from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from moat.api.errors import RuntimeUnavailable, UsageError
from moat.api.runtimes import DoorTicket, Readiness, Runtime, Sandbox, SandboxSpec, Stdio
from moat.runtimes import moat_runtimes
from moat.runtimes.detect import Begun, choose


class Fake(Runtime):
    summary = "a fake"

    def __init__(self, name: str, readiness: Readiness) -> None:
        self.name = name  # type: ignore[misc] # one class for many names
        self._readiness = readiness
        self.asked: list[str] = []
        self.told: list[str] = []

    @contextmanager
    def begun(self) -> Iterator[None]:
        self.told.append("begun")
        yield
        self.told.append("undone")

    async def readiness(self, image: str) -> Readiness:
        self.told.append("asked")
        self.asked.append(image)
        return self._readiness

    async def launch(
        self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio, created: Callable[[str], Awaitable[None]]
    ) -> Sandbox:
        raise NotImplementedError


READY = Readiness(True, "fine")


def absent(what: str) -> Readiness:
    return Readiness(False, f"{what} is not installed", f"run: sudo apt-get install {what}")


async def test_docker_is_first_when_it_is_ready() -> None:
    docker, bubblewrap = Fake("docker", READY), Fake("bubblewrap", READY)

    assert await choose([bubblewrap, docker], "", "debian") is docker
    assert docker.asked == ["debian"]
    assert bubblewrap.asked == []


async def test_bubblewrap_is_next() -> None:
    bubblewrap = Fake("bubblewrap", READY)

    assert await choose([Fake("docker", absent("docker.io")), bubblewrap], "", "") is bubblewrap


async def test_nothing_ready_says_why_each_and_what_to_install() -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        await choose([Fake("docker", absent("docker.io")), Fake("bubblewrap", absent("bubblewrap"))], "", "")

    assert "docker: docker.io is not installed" in caught.value.problem
    assert "bubblewrap: bubblewrap is not installed" in caught.value.problem
    assert caught.value.hint == "run: sudo apt-get install bubblewrap"


async def test_process_and_plugins_are_never_chosen_by_themselves() -> None:
    with pytest.raises(RuntimeUnavailable):
        await choose([Fake("process", READY), Fake("cloud", READY)], "", "")


@pytest.mark.parametrize("name", ["process", "cloud"])
async def test_named_runtime_is_taken(name: str) -> None:
    assert (await choose([Fake("process", READY), Fake("cloud", READY), Fake("docker", READY)], name, "")).name == name


async def test_named_runtime_that_is_not_ready_is_not_replaced() -> None:
    with pytest.raises(RuntimeUnavailable, match="docker cannot be used") as caught:
        await choose([Fake("docker", absent("docker.io")), Fake("bubblewrap", READY)], "docker", "")
    assert caught.value.hint


async def test_unknown_name_is_a_usage_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        await choose([Fake("bubblewrap", READY)], "bublewrap", "")

    assert caught.value.hint == "did you mean --runtime bubblewrap?"


def test_built_in_runtimes_have_distinct_names_and_only_process_is_open() -> None:
    runtimes = list(moat_runtimes())

    assert [runtime.name for runtime in runtimes] == ["docker", "podman", "bubblewrap", "gvisor", "process"]
    assert [runtime.sealed for runtime in runtimes] == [True, True, True, True, False]


async def test_runtimes_that_are_looked_at_for_a_launch_begin_before_and_once() -> None:
    docker, bubblewrap, other = Fake("docker", absent("docker.io")), Fake("bubblewrap", READY), Fake("other", READY)

    with Begun() as begun:
        begun.begin(bubblewrap)
        await choose([docker, bubblewrap, other], "", "", begun)
        told = [*docker.told], [*bubblewrap.told], [*other.told]

    assert told == (["begun", "asked"], ["begun", "asked"], [])
    assert docker.told == bubblewrap.told == ["begun", "asked", "undone"]


async def test_nothing_begins_where_nothing_is_launched() -> None:
    docker = Fake("docker", READY)
    await choose([docker], "docker", "")

    assert docker.told == ["asked"]
