"""The podman runtime: docker's containers, gate and door, on podman's engine, as root or rootless."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from moat.runtimes.docker import Docker

if TYPE_CHECKING:
    from moat.runtimes.engine import Engine


class Podman(Docker):
    """Containers on podman's service: CONTAINER_HOST, else the user's socket, else the machine's. Pulls no image."""

    name: ClassVar[str] = "podman"
    summary: ClassVar[str] = "containers without any network but the door, held by podman"

    def engine(self) -> type[Engine]:
        """Return podman's engine."""
        from moat.runtimes.podman_engine import PodmanEngine

        return PodmanEngine
