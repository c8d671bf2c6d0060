"""Images that a runtime can make from a recipe: what is ordered, what is there.

A recipe runs in a container that is as sealed as a run, without any grant, and what it leaves becomes the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moat.api.container import Mount
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """An image to be made. argv: runs as the container's root, with nothing in its environment but the image's own.

    base: the digest of the image below, base_name: what the user calls it. mounts: files of ours, all below /dev, where
    they leave no trace in the image. dependencies: what the recipe installs, for `moat image list`.
    """

    run_id: str
    base: str
    base_name: str
    tag: str
    argv: tuple[str, ...]
    mounts: tuple[Mount, ...]
    dependencies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image that was made here. created: ISO 8601 in UTC. size: bytes, with those of the image below."""

    tag: str
    base: str
    dependencies: tuple[str, ...]
    created: str
    size: int


class Images(ABC):
    """The images of one runtime's engine."""

    @abstractmethod
    async def identify(self, image: str) -> str:
        """Return the digest that stands for image's content, "" when it is not there. Raises SandboxFailed."""

    async def pull(self, image: str, told: Callable[[str], None]) -> None:
        """Have the engine fetch image as it fetches any. told: is called with lines about how it goes.

        Raises SandboxFailed, saying why. Default: always.
        """
        del told
        raise SandboxFailed(f"there is no image {image}, and this runtime fetches none")

    @abstractmethod
    async def build(
        self,
        order: BuildOrder,
        ticket: DoorTicket,
        created: Callable[[str], Awaitable[None]],
        told: Callable[[bytes], None],
    ) -> int:
        """Run a recipe and make an image of what it leaves when it ends with 0; return its exit code.

        created: as for `Runtime.launch`. told: is called with pieces of the recipe's output. Raises SandboxFailed.
        Whatever happens, no container is left, and under the tag is either the whole image or nothing new.
        """

    @abstractmethod
    async def built(self) -> tuple[BuiltImage, ...]:
        """Return the images that this installation made, newest first. Raises SandboxFailed."""

    @abstractmethod
    async def remove(self, tag: str) -> None:
        """Remove an image that this installation made. Raises SandboxFailed when it is in use or not there."""
