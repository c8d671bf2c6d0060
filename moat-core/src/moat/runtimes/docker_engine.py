"""Talk to the container engine: open a session, bound every call in time, attach to containers, remove them.

The one place that knows aiodocker's ways; imported by docker modules only, never at start-up. Never pulls an image.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import aiodocker
import aiohttp
from aiodocker.stream import Stream
from aiodocker.types import JSONObject
from yarl import URL

from moat.api.errors import SandboxFailed
from moat.runtimes.engine import CALL_TIMEOUT_S, NOT_FOUND, Engine

READY_TIMEOUT_S = 10.0  # `readiness` should be quick, but an engine that builds an image elsewhere takes seconds
# The byte that would detach the engine's stream from a terminal. It cannot be switched off, and its default (ctrl-p
# ctrl-q) swallows keys; no keyboard sends 0xFF, and no UTF-8 text holds it.
DETACH_KEY = "%FF"
STDOUT, STDERR = 1, 2
BEGINNING_BYTES = 200  # an init that cannot start a command says no more

T = TypeVar("T")


@contextlib.asynccontextmanager
async def session(engine: type[Engine] = Engine, timeout_s: float = CALL_TIMEOUT_S) -> AsyncIterator[Engine]:
    """Open a session with an engine, and close it after. Raises SandboxFailed when there is none."""
    docker = engine.open(timeout_s)
    try:
        yield docker
    finally:
        await docker.close()


@contextlib.contextmanager
def told_as(docker: Engine, task: str, hint: str = "") -> Iterator[None]:
    """Turn the engine's complaints and silences into SandboxFailed, saying what was tried. hint: where it complains."""
    title, look = docker.title, docker.look
    try:
        yield
    except aiodocker.DockerError as failure:
        said = _first_line(failure).replace(Engine.service, docker.service)  # aiodocker knows docker only
        raise SandboxFailed(f"{title} could not {task}: {said}", hint=hint or docker.remedy(said)) from failure
    except TimeoutError as failure:
        raise SandboxFailed(f"{title} did not {task} in time", hint=look) from failure
    except (aiohttp.ClientError, OSError) as failure:
        raise SandboxFailed(f"{title} could not {task}: {failure}", hint=look) from failure


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await work to its end even if the caller is cancelled meanwhile, and only then be cancelled.

    For calls that make something: an interrupted one would leave behind what nobody knows of.
    """
    ended = asyncio.Event()

    async def to_the_end() -> T:
        try:
            return await work
        finally:
            ended.set()

    try:
        return await asyncio.shield(to_the_end())
    except asyncio.CancelledError:
        await ended.wait()
        raise


async def create(docker: Engine, name: str, config: JSONObject) -> str:
    """Create a container and return its id. Raises SandboxFailed."""
    with told_as(docker, f"create {name}"):
        container = await uninterrupted(docker.containers.create(docker.container(config), name=name))
    return container.id


async def remove(docker: Engine, name: str) -> None:
    """Kill a container and return when it and its anonymous volumes are gone. Raises SandboxFailed."""
    container = docker.containers.container(name)
    with told_as(docker, f"remove {name}"):
        try:
            await container.delete(force=True, v=True)
        except aiodocker.DockerError as failure:
            if docker.is_ending(failure):  # somebody else removes it already, or it does so itself
                await _until_removed(container)
            elif failure.status != NOT_FOUND:
                raise


async def remove_network(docker: Engine, name: str) -> None:
    """Remove a network; one that is gone is fine. Raises SandboxFailed."""
    with told_as(docker, f"remove the network {name}"):
        try:
            network = await docker.networks.get(name)
            await network.delete()
        except aiodocker.DockerError as failure:
            if failure.status != NOT_FOUND:
                raise


class Streams:
    """The standard streams of something that runs in a container. beginning: how its output began."""

    def __init__(self, docker: Engine, stream: Stream) -> None:
        self._docker = docker
        self._stream = stream
        self._again: list[tuple[int, bytes]] = []
        self.beginning = b""

    async def open(self) -> None:
        """Attach. Raises SandboxFailed."""
        with told_as(self._docker, "attach to a container"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._stream.__aenter__()

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next piece of output with STDOUT or STDERR, or None when the container has ended."""
        if self._again:
            return self._again.pop(0)
        try:
            message = await self._stream.read_out()
        except (aiodocker.DockerError, aiohttp.ClientError, OSError):
            return None  # the engine is gone: who waits for the container is told
        if message is None:
            return None
        self.beginning += message.data[: BEGINNING_BYTES - len(self.beginning)]
        return message.stream, message.data

    def put_back(self, pieces: list[tuple[int, bytes]]) -> None:
        """Have pieces that were read be read again, in their order."""
        self._again[:0] = pieces

    async def write(self, data: bytes) -> None:
        """Write to the container's input. Raises OSError when it is gone."""
        try:
            await self._stream.write_in(data)
        except (RuntimeError, AssertionError, aiohttp.ClientError, aiodocker.DockerError) as failure:
            raise BrokenPipeError("the container's input is closed") from failure

    def end_input(self) -> None:
        """Let the container read the end of its input, while its output goes on.

        aiodocker offers no half-close, so this reaches for the transport. TLS has none either: the input of a container
        on an engine reached over TLS ends when the attachment does.
        """
        response = self._stream._resp
        transport = None if response is None or response.connection is None else response.connection.transport
        if transport is not None and not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()

    async def close(self) -> None:
        """Let go of the streams. Safe to call twice."""
        with contextlib.suppress(AssertionError, OSError):  # aiodocker asserts on a connection that is already lost
            await self._stream.close()


class Attachment(Streams):
    """A container's standard streams, attached before it starts so that nothing is missed.

    tty: whether the container has a terminal; its output is then one stream.
    """

    def __init__(self, docker: Engine, container_id: str, *, tty: bool = False) -> None:
        address = f"containers/{container_id}/attach?stream=1&stdin=1&stdout=1&stderr=1&detachKeys={DETACH_KEY}"

        async def setup() -> tuple[URL, bytes | None, bool]:
            return URL(address, encoded=True), None, tty

        super().__init__(docker, Stream(docker, setup))


async def _until_removed(container: aiodocker.containers.DockerContainer) -> None:
    async with asyncio.timeout(CALL_TIMEOUT_S):
        try:
            await container.wait(condition="removed")
        except aiodocker.DockerError as failure:
            if failure.status != NOT_FOUND:
                raise


def _first_line(failure: aiodocker.DockerError) -> str:
    return (str(failure.message).strip().splitlines() or [f"status {failure.status}"])[0]
