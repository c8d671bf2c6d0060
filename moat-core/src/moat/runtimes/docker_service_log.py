"""What a service's container prints, carried to whoever keeps it, from its first line to its last.

started ─▶ /logs?follow ─▶ frames ─▶ take(stream, bytes) … killed ─▶ the end of the answer: all was carried
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import aiodocker
import aiohttp

from moat.runtimes.engine import Engine

Stream: TypeAlias = Literal["stdout", "stderr"]

LAST_S = 5.0  # for what it printed last, once it is killed
_HEAD_BYTES = 8  # of a frame: the stream, three zeros, the length (Engine API, "Attach to a container")
_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
_NO_LIMIT = aiohttp.ClientTimeout(total=None)
_ENGINE = (aiodocker.DockerError, aiohttp.ClientError, OSError)


class ServiceLog:
    """One container's. take: the name of the stream, and a piece of what was printed. Nothing is raised: it may end."""

    def __init__(self, docker: Engine, container_id: str, take: Callable[[Stream, bytes], None]) -> None:
        self._docker = docker
        self._container_id = container_id
        self._take = take
        self._frames = Frames()
        self._undo = contextlib.AsyncExitStack()
        self._response: aiohttp.ClientResponse | None = None

    async def carry(self) -> None:
        """Carry until the container has ended. May be cancelled, and called again to go on."""
        with contextlib.suppress(*_ENGINE):
            response = await self._opened()
            while data := await response.content.readany():
                for stream, piece in self._frames.of(data):
                    self._take(stream, piece)

    async def finish(self) -> None:
        """End the container, carry what it printed last, bounded, and let go."""
        with contextlib.suppress(*_ENGINE):
            await self._docker.containers.container(self._container_id).kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self.carry()
        await self._undo.aclose()

    async def _opened(self) -> aiohttp.ClientResponse:
        if self._response is None:
            path = f"containers/{self._container_id}/logs"
            params = {"stdout": 1, "stderr": 1, "follow": 1}
            asking = self._docker._query(path, params=params, timeout=_NO_LIMIT)
            self._response = await self._undo.enter_async_context(asking)
        return self._response


class Frames:
    """Takes an engine's frames apart, however they are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, data: bytes) -> Iterator[tuple[Stream, bytes]]:
        """Yield the streams and pieces of the frames that are whole now."""
        self._rest += data
        while len(self._rest) >= _HEAD_BYTES:
            end = _HEAD_BYTES + int.from_bytes(self._rest[4:_HEAD_BYTES], "big")
            if len(self._rest) < end:
                return
            yield _STREAMS.get(self._rest[0], "stdout"), self._rest[_HEAD_BYTES:end]
            self._rest = self._rest[end:]
