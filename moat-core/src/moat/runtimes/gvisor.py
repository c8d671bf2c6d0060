"""The gvisor runtime: docker's containers on gVisor's kernel (runsc), by the fallback without a door.

No descriptor of a socket inside gVisor's kernel can be handed out, so there is no door to open. Never taken by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from moat.runtimes.docker import Docker

if TYPE_CHECKING:
    from moat.api.images import Images
    from moat.runtimes.engine import Engine


class Gvisor(Docker):
    """Containers whose kernel is gVisor's, on docker's engine, where it knows the runtime runsc."""

    name: ClassVar[str] = "gvisor"
    summary: ClassVar[str] = "containers on gVisor's kernel, without a door: an internal network and a proxy token"
    door: ClassVar[bool] = False

    def engine(self) -> type[Engine]:
        """Return docker's engine, with runsc for what it is to create."""
        from moat.runtimes.gvisor_engine import GvisorEngine

        return GvisorEngine

    def has_door(self) -> bool:
        """Never."""
        return False

    def images(self) -> Images:
        """Return what makes images: docker, behind a gate and a door, on the machine's own kernel."""
        return Docker().images()
