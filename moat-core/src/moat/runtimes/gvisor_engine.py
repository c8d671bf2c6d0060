"""docker's engine where a container's kernel is gVisor's. Only a run's own container is created by such a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from moat.api.runtimes import Readiness
from moat.runtimes.engine import Engine

if TYPE_CHECKING:
    from aiodocker.types import JSONObject

RUNTIME = "runsc"  # gVisor's own name for it, under which `runsc install` makes it known to docker
INSTALL_HINT = "install gVisor (apt-get install runsc), then: sudo runsc install && sudo systemctl restart docker"


class GvisorEngine(Engine):
    """A session with docker, whose containers run on runsc."""

    note: ClassVar[str] = " with runsc; no door: an internal network and a proxy token instead"

    async def objection(self, version: Mapping[str, Any]) -> Readiness | None:
        """Return why this engine will not do: it does not know runsc."""
        info = await self.system.info()
        if RUNTIME not in (info.get("Runtimes") or {}):
            return Readiness(False, f"docker knows no runtime {RUNTIME}", INSTALL_HINT)
        return await super().objection(version)

    def container(self, config: JSONObject) -> JSONObject:
        """Return a container's configuration, with its kernel."""
        host: Any = config["HostConfig"]
        return {**config, "HostConfig": {**host, "Runtime": RUNTIME}}
