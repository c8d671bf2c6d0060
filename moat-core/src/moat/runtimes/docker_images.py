"""Makes images with the engine: a sealed container runs the recipe, and what it leaves is committed under a tag.

    gate ─▶ its door is open ─▶ container of the base image, root, joined to the gate's network ─▶ exit 0 ─▶ commit

What makes the run's clients trust and find the proxy is not in the container's configuration, which the engine keeps in
the image, but in a file below /dev: that is a tmpfs of the container's own, so no mount point stays behind either.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moat.api.errors import SandboxFailed
from moat.api.images import BuildOrder, BuiltImage, Images
from moat.api.runtimes import DoorTicket
from moat.paths import find_home
from moat.runtimes.docker_config import (
    BASE_LABEL,
    DEPENDENCIES_LABEL,
    HOME_LABEL,
    build_container,
    container_name,
    gate_name,
    image_config,
    labels,
)
from moat.runtimes.docker_engine import Attachment, create, remove, session, told_as, uninterrupted
from moat.runtimes.docker_gate import Gate, create_gate
from moat.runtimes.docker_ready import user_of
from moat.runtimes.engine import Engine
from moat.runtimes.seccomp import engine_profile
from moat.runtimes.unstartable import without_a_shell

if TYPE_CHECKING:
    from aiodocker.types import JSONObject

_TOLD_OF_LAYERS = ("Pulling fs layer", "Pull complete")
COMMIT_TIMEOUT_S = 1800.0  # the engine walks through all that was installed, and reads it


@dataclass(frozen=True, slots=True)
class DockerImages(Images):
    """Images of an engine; two of the same engine's are equal. has_door: see `Docker`."""

    has_door: bool
    engine: type[Engine] = Engine

    async def identify(self, image: str) -> str:
        """Return the image's id."""
        async with session(self.engine) as docker:
            return str((await _facts(docker, image)).get("Id", ""))

    async def pull(self, image: str, told: Callable[[str], None]) -> None:
        """Have the engine pull, and tell each state of it once, not each of its layers' many."""
        async with session(self.engine) as docker:
            with told_as(docker, f"pull {image}", hint=docker.how_to_pull(image)):
                states: set[str] = set()
                async for event in docker.images.pull(image, stream=True):
                    state = str(event.get("status", ""))
                    if state and "id" not in event and state not in states:
                        states.add(state)
                        told(state)
                    elif state in _TOLD_OF_LAYERS:
                        told(f"{event.get('id')}: {state}")

    async def build(
        self,
        order: BuildOrder,
        ticket: DoorTicket,
        created: Callable[[str], Awaitable[None]],
        told: Callable[[bytes], None],
    ) -> int:
        """Run the recipe behind a gate, then commit."""
        if not self.has_door:
            raise SandboxFailed("images are built only where the engine is on this machine", hint="run: moat doctor")
        async with contextlib.AsyncExitStack() as undo:
            docker = self.engine.open()
            undo.push_async_callback(docker.close)
            return await _Build(docker, order, ticket, undo).perform(created, told)

    async def built(self) -> tuple[BuiltImage, ...]:
        """Ask the engine for what bears this installation's labels."""
        mine = f"{HOME_LABEL}={labels('', find_home().root)[HOME_LABEL]}"
        async with session(self.engine) as docker:
            with told_as(docker, "list images"):
                listed = await docker.images.list(filters={"label": [mine]})
            found = [_as_image(each, docker.tag(tag)) for each in listed for tag in _tags(each)]
        return tuple(sorted(found, key=lambda image: image.created, reverse=True))

    async def remove(self, tag: str) -> None:
        """Remove a tag, and with its last one the image. One that containers use stays."""
        async with session(self.engine) as docker:
            with told_as(docker, f"remove the image {tag}"):
                await docker.images.delete(tag)


class _Build:
    """One build: the steps, with what they share."""

    def __init__(self, docker: Engine, order: BuildOrder, ticket: DoorTicket, undo: contextlib.AsyncExitStack) -> None:
        self._docker = docker
        self._order = order
        self._ticket = ticket
        self._undo = undo
        self._marks = labels(order.run_id, find_home().root)

    async def perform(self, created: Callable[[str], Awaitable[None]], told: Callable[[bytes], None]) -> int:
        base = await _facts(self._docker, self._order.base)
        if not base:
            raise SandboxFailed(f"{self._docker.title} has no image {self._order.base} any more", hint="run it again")
        gate = await self._gate()
        name = container_name(self._order.run_id)
        config = build_container(self._order, gate.network, engine_profile(), self._marks)
        self._undo.push_async_callback(self._remove, name)
        container_id = await create(self._docker, name, config)
        attachment = Attachment(self._docker, container_id)
        self._undo.push_async_callback(attachment.close)
        await attachment.open()
        await created(container_id)
        try:
            with told_as(self._docker, "start the build"):
                await self._docker.containers.container(container_id).start()
        except SandboxFailed as failure:
            raise without_a_shell(failure, self._order.base_name) from failure
        code = await self._watched(gate, container_id, attachment, told)
        if code == 0:
            await self._commit(container_id, base.get("Config") or {})
        return code

    async def _gate(self) -> Gate:
        user = await user_of(self._docker)
        self._undo.push_async_callback(self._remove, gate_name(self._order.run_id))
        gate = await create_gate(self._docker, self._ticket, user, self._marks)
        self._undo.push_async_callback(gate.close)
        await gate.start()
        await gate.open_door(self._ticket)
        return gate

    async def _watched(
        self, gate: Gate, container_id: str, attachment: Attachment, told: Callable[[bytes], None]
    ) -> int:
        """Tell the container's output until it ends, and return its exit code. Raises SandboxFailed without a gate."""
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(gate.watch())
                while (piece := await attachment.read()) is not None:
                    told(piece[1])
                with told_as(self._docker, "tell the build's end"):
                    result = await self._docker.containers.container(container_id).wait()
                await gate.check()  # what was built without a network is not what was asked for
                watching.cancel()
        except* SandboxFailed as lost:
            raise _first(lost) from None
        return int(result["StatusCode"])

    async def _commit(self, container_id: str, base: Mapping[str, Any]) -> None:
        """Make the image. Begun, it is waited for: so there is the whole image or none."""
        repository, _, tag = self._order.tag.partition(":")
        container = self._docker.containers.container(container_id)
        config = dict(image_config(base, self._order, self._marks))
        words: dict[str, Any] = {"repository": repository, "tag": tag, "changes": self._docker.changes(config) or None}
        with told_as(self._docker, "make the image"):
            await uninterrupted(container.commit(timeout=COMMIT_TIMEOUT_S, pause=False, config=config, **words))

    async def _remove(self, name: str) -> None:
        await uninterrupted(remove(self._docker, name))


async def _facts(docker: Engine, image: str) -> dict[str, Any]:
    """Return what the engine knows of an image, nothing if it does not have it. Raises SandboxFailed."""
    with told_as(docker, f"look for the image {image}"):
        return await docker.facts_of(image)


def _tags(listed: JSONObject) -> Sequence[str]:
    """Return the tags of an image that was made here. Engines disagree on what two labels to look for mean."""
    facts: Any = listed
    return (facts.get("RepoTags") or ()) if DEPENDENCIES_LABEL in (facts.get("Labels") or {}) else ()


def _as_image(listed: JSONObject, tag: str) -> BuiltImage:
    facts: Any = listed
    marks = facts.get("Labels") or {}
    created = datetime.fromtimestamp(int(facts.get("Created", 0)), UTC)
    dependencies = tuple(marks.get(DEPENDENCIES_LABEL, "").split())
    return BuiltImage(tag, marks.get(BASE_LABEL, ""), dependencies, created.isoformat(), int(facts.get("Size", 0)))


def _first(failures: BaseExceptionGroup[SandboxFailed]) -> SandboxFailed:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure
