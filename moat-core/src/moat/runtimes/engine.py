"""A session with a container engine that speaks the Engine API, and all that differs from one such engine to the next.

    Engine: docker ─┬─ PodmanEngine   where it is found, what it wants said differently, how it tells of itself
                    └─ GvisorEngine   docker, with another kernel below the run's container

Whoever makes containers asks here instead of asking which engine it is. Needs aiodocker, like everything that has one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import aiodocker
import aiohttp

from moat.api.errors import SandboxFailed
from moat.api.runtimes import Readiness
from moat.runtimes.docker_library import trust_roots
from moat.runtimes.unstartable import code_of

if TYPE_CHECKING:
    from typing import Self

    from aiodocker.types import JSONObject

CALL_TIMEOUT_S = 60.0  # one call of a busy engine; a container's start is the slowest
NO_REMEDY = "run: moat doctor"
START_IT = "install and start docker (apt-get install docker.io), or use --runtime bubblewrap"
NOT_FOUND, CONFLICT, NO_CONNECTION = 404, 409, 900  # aiodocker reports an engine that cannot be reached as 900

SSH = "ssh://"
ROOTLESS = "name=rootless"  # docker's word

_INIT_SAYS = re.compile(rb"\[FATAL tini \(\d+\)\] exec [^\r\n]* failed: ([^\r\n]*)")

_versions: dict[str, str] = {}  # where an engine is → the version of the API that was agreed on


class Engine(aiodocker.Docker):
    """Docker's: the engine that DOCKER_HOST, the docker context or the usual sockets name.

    title: what it is called. service: what one connects to. look: what to type when it does not do what it was asked.
    gate_first: nothing is attached to that joins a container which does not run yet. removes_at_once: a container may
    go before those that have joined its network. note: what its user should know beside its version.
    """

    title: ClassVar[str] = "docker"
    service: ClassVar[str] = "Docker Engine"
    look: ClassVar[str] = "run: docker info"
    gate_first: ClassVar[bool] = False
    removes_at_once: ClassVar[bool] = True
    note: ClassVar[str] = ""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if not isinstance(self.connector, aiohttp.UnixConnector):
            trust_roots()

    @classmethod
    def open(cls, timeout_s: float = CALL_TIMEOUT_S) -> Self:
        """Return a session that the caller closes. Raises SandboxFailed when no engine is configured or installed."""
        host = os.environ.get("DOCKER_HOST") or None  # before any context, as docker itself has it
        try:
            if host is None and (context := cls._get_docker_context_endpoint()) is not None:
                _refuse_ssh(context.host, "the docker context", "run: docker context use default")
            _refuse_ssh(host or "", "DOCKER_HOST", "run: unset DOCKER_HOST")
            session = cls(url=host, timeout=aiohttp.ClientTimeout(total=timeout_s))
        except aiodocker.DockerError as failure:
            raise SandboxFailed(f"docker cannot be reached: {failure.message}", hint=cls.look) from None
        except (AssertionError, ValueError, aiodocker.exceptions.DockerContextInvalidError) as failure:
            problem = str(failure) or "no docker engine is running here"
            raise SandboxFailed(problem, hint=START_IT) from None
        session.api_version = _versions.get(session._place, session.api_version)
        return session

    @property
    def _place(self) -> str:
        connector = self.connector
        return connector.path if isinstance(connector, aiohttp.UnixConnector) else self.docker_host

    async def facts_of(self, image: str) -> dict[str, Any]:
        """Return what the engine knows of an image, nothing if it does not have it. Raises aiodocker's errors."""
        try:
            return await self.images.inspect(image)
        except aiodocker.DockerError as failure:
            if failure.status == NOT_FOUND:
                return {}
            raise

    @contextlib.asynccontextmanager
    async def with_gateway(self, network: str, marks: Mapping[str, str]) -> AsyncIterator[None]:
        """Have the gateway of a network of the run's be an address of this machine meanwhile, so that it can be bound.

        docker's is as long as the network. Raises SandboxFailed where no proxy on this machine can ever be reached.
        """
        del network, marks
        yield

    def container(self, config: JSONObject) -> JSONObject:
        """Return a container's configuration as this engine wants it said."""
        return config

    @classmethod
    def way_in(cls, failure: SandboxFailed) -> str:
        """Return what to type where the engine cannot be reached."""
        if "ermission denied" in failure.problem:
            return "run: sudo usermod -aG docker $USER, then log in again"
        if failure.hint not in (cls.look, NO_REMEDY):
            return failure.hint
        return f"run: unset DOCKER_HOST, or {START_IT}" if "DOCKER_HOST" in os.environ else START_IT

    async def objection(self, version: Mapping[str, Any]) -> Readiness | None:
        """Return why this engine will not do, None where it will. version: its greeting. Raises aiodocker's errors."""
        if is_podman(version):
            return Readiness(False, "what answers where docker should is podman", "use --runtime podman")
        return None

    def how_to_pull(self, image: str) -> str:
        """Return what to type for an image that is not there."""
        return f"run: docker pull {image}"

    def remedy(self, complaint: str) -> str:
        """Return what to type when the engine complains."""
        del complaint
        return NO_REMEDY

    async def greeting(self) -> Mapping[str, Any]:
        """Return the engine's version, and what it is made of. Raises aiodocker's errors.

        By a ping: told its version whole, docker starts two programs, and podman asks the package manager. Later
        sessions of this process need not agree on a version of the API again.
        """
        async with self._query("_ping", versioned_api=False) as answer:
            server, _, version = answer.headers.get("Server", "").partition("/")
            if (api := answer.headers.get("Api-Version")) and self.api_version == "auto":
                self.api_version = _versions[self._place] = f"v{api}"
        name = "Podman" if server == "Libpod" else server
        return {"Version": version.split()[0] if version else "", "Components": [{"Name": name}]}

    async def options(self) -> tuple[str, ...]:
        """Return how the engine confines, as far as it matters here: rootless or not. Raises aiodocker's errors.

        Whose socket is root's is root. Asked for its info, an engine starts programs too.
        """
        scheme, _, path = self._connection_info.partition("://")
        if scheme == "unix" and _owner(path) == 0:
            return ()
        info = await self.system.info()
        return tuple(info.get("SecurityOptions") or ())

    def changes(self, config: Mapping[str, Any]) -> str:
        """Return what must be said beside an image's configuration for the image to have it: lines of a Dockerfile."""
        del config
        return ""

    def tag(self, told: str) -> str:
        """Return the name of an image as people write it, from what the engine lists."""
        return told

    def is_ending(self, failure: aiodocker.DockerError) -> bool:
        """Whether a container could not be removed because it is ending, or somebody else removes it already."""
        return failure.status == CONFLICT

    async def signal(self, container_id: str, number: int, *, is_here: bool) -> None:
        """Send a signal to a container's command and its children. is_here: on this machine.

        Raises aiodocker's errors.
        """
        del is_here  # its init does it
        await self.containers.container(container_id).kill(signal=str(number))

    def absence(self, said: bytes) -> tuple[int, str] | None:
        """Return exit code and reason when a command's output begins with why its container's init could not start it.

        docker's init, tini, ends with 1 for a program of another kind of machine, where a shell has 126.
        """
        match = _INIT_SAYS.match(said)
        if match is None:
            return None
        why = match[1].decode(errors="replace")
        return code_of(why), why

    def has_begun(self, command: Mapping[str, Any]) -> bool:
        """Whether one more command in a container was started, as far as its facts say; else it told why."""
        return bool(command.get("Pid"))

    def is_complaint(self, said: bytes) -> bool:
        """Whether output in place of a command's is the engine's own, which says why nothing was started."""
        del said
        return True


def _refuse_ssh(address: str, owner: str, hint: str) -> None:
    if address.startswith(SSH):
        problem = f"{owner} names a docker engine by ssh, which cannot hold a run: the run's files are on this machine"
        raise SandboxFailed(problem, hint=f"{hint}, or use --runtime bubblewrap")


def _owner(path: str) -> int:
    return Path(path).stat().st_uid


def is_podman(version: Mapping[str, Any]) -> bool:
    """Whether an engine that told this of itself is podman. Its service stands in docker's place on many machines."""
    return any("Podman" in str(part.get("Name")) for part in version.get("Components") or ())
