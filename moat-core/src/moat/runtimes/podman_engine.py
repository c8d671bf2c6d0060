"""podman's engine: where its service listens, and what of Docker's words it wants said differently (podman 4.3 to 5).

    CONTAINER_HOST ─▶ DOCKER_HOST, if it names podman ─▶ $XDG_RUNTIME_DIR/podman/podman.sock ─▶ /run/podman/podman.sock

The first that is there is taken; root has no socket of its own. No service is started here: systemd starts one when
somebody connects, and one that a run had started would be nobody's when the daemon has to clear up after that run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import aiodocker
import aiohttp

from moat.api.errors import SandboxFailed
from moat.api.runtimes import Readiness
from moat.paths import find_home
from moat.runtimes.docker_config import INIT_VARIABLES, NETWORK_FILES, RUN_LABEL, bind, gate_name, idle_container
from moat.runtimes.engine import CALL_TIMEOUT_S, CONFLICT, NO_REMEDY, ROOTLESS, Engine, is_podman
from moat.runtimes.unstartable import ABSENT, UNUSABLE, code_of

if TYPE_CHECKING:
    from typing import Self

    from aiodocker.types import JSONObject

SYSTEM_SOCKET = Path("/run/podman/podman.sock")
SYSTEMD = Path("/run/systemd/system")  # there where systemd runs the machine (sd_booted(3))
SECCOMP = "seccomp="
UNLABELLED = "label=disable"  # SELinux would keep a run from files that are not labelled for containers: all of them
LOCAL = "localhost/"  # where podman puts what was made or loaded under a short name
HOSTS = NETWORK_FILES[0]
EXTRA_HOSTS = "ExtraHosts"
_HUB = ("docker.io/library/", "docker.io/")
ID_CHARS = 64  # of a whole container id
API = "v1.41"  # asked for it, podman takes more than a second
_INIT_SAYS = re.compile(rb"ERROR \(catatonit:\d+\): failed to exec pid1: ([^\r\n]*)")


class PodmanEngine(Engine):
    """A session with podman's service."""

    title: ClassVar[str] = "podman"
    service: ClassVar[str] = "podman's service"
    look: ClassVar[str] = "run: podman info"
    gate_first: ClassVar[bool] = True
    removes_at_once: ClassVar[bool] = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._found: dict[str, tuple[str, dict[str, Any]]] = {}

    @classmethod
    def open(cls, timeout_s: float = CALL_TIMEOUT_S) -> Self:
        """Return a session that the caller closes. Raises SandboxFailed when there is no service to be found."""
        address = find_service(os.environ)
        if not address:
            problem = "podman's service is not running" if shutil.which("podman") else "podman is not installed"
            raise SandboxFailed(problem, hint=start_it())
        try:
            return cls(url=address, api_version=API, timeout=aiohttp.ClientTimeout(total=timeout_s))
        except (ValueError, aiodocker.DockerError) as failure:
            said = failure.message if isinstance(failure, aiodocker.DockerError) else failure
            hint = f"export CONTAINER_HOST=unix://{SYSTEM_SOCKET}, or where its socket is"
            raise SandboxFailed(f"{address} cannot be used: {said}", hint=hint) from None

    @classmethod
    def way_in(cls, failure: SandboxFailed) -> str:
        """Return what to type where the service cannot be reached."""
        if failure.hint not in (cls.look, NO_REMEDY):
            return failure.hint
        return (
            "start podman's service there, or: unset CONTAINER_HOST" if "CONTAINER_HOST" in os.environ else start_it()
        )

    async def objection(self, version: Mapping[str, Any]) -> Readiness | None:
        """Return why this engine will not do: it is docker's."""
        if is_podman(version):
            return None
        return Readiness(False, "what answers where podman should is docker", "use --runtime docker")

    def how_to_pull(self, image: str) -> str:
        """Return what to type for an image that is not there."""
        return f"run: podman pull {image}"

    def remedy(self, complaint: str) -> str:
        """Return what to type when podman complains."""
        if "catatonit" in complaint or "container-init binary" in complaint:
            return "install catatonit, podman's init for containers (apt-get install catatonit)"
        if "seccomp profile" in complaint:
            return "have MOAT_HOME in a folder that podman's machine shares with this one"
        return super().remedy(complaint)

    async def options(self) -> tuple[str, ...]:
        """Return how podman confines: rootless where the service's socket is not root's. Its info is slow."""
        scheme, _, path = self._connection_info.partition("://")
        if scheme == "unix":
            return () if _owner(path) == 0 else (ROOTLESS,)
        info = await self.system.info()
        return (ROOTLESS,) if info.get("Rootless") else ()

    async def facts_of(self, image: str) -> dict[str, Any]:
        """Return what podman knows of an image. A short name means Docker Hub's to its service, then its own."""
        for name in (image, f"{LOCAL}{image}"):
            if facts := await super().facts_of(name):
                self._found[image] = name, facts
                return facts
        return {}

    def changes(self, config: Mapping[str, Any]) -> str:
        """Return an image's configuration as lines: podman reads no other. The container's variables stay in it."""
        lines = [f"USER {config['User']}", f"WORKDIR {config.get('WorkingDir') or '/'}"]
        lines += [f"{word.upper()} {json.dumps(config[word])}" for word in ("Entrypoint", "Cmd")]
        labels = config["Labels"].items()
        return "\n".join([*lines, *(f"LABEL {name}={_quoted(value)}" for name, value in labels)])

    def tag(self, told: str) -> str:
        """Return the name of an image as people write it."""
        return next((told.removeprefix(place) for place in (LOCAL, *_HUB) if told.startswith(place)), told)

    @contextlib.asynccontextmanager
    async def with_gateway(self, network: str, marks: Mapping[str, str]) -> AsyncIterator[None]:
        """Have a container in the network meanwhile: podman makes a bridge with the first, and it goes with the last.

        What is bound to its address outlives that. Where podman is rootless the bridge is in a namespace of its own,
        and in a virtual machine no way leads out of it.
        """
        from moat.runtimes.docker_engine import create, remove, told_as
        from moat.runtimes.docker_gate import ensure_image

        with told_as(self, "describe itself"):
            is_elsewhere = (await self.version()).get("KernelVersion") != os.uname().release
            if is_elsewhere or ROOTLESS in await self.options():
                problem = "without a door, no proxy can be reached from podman that is rootless or on another machine"
                raise SandboxFailed(problem, hint="use --runtime docker or bubblewrap, or podman on this machine")
        name = gate_name(marks[RUN_LABEL])  # which there is none of
        try:
            await create(self, name, idle_container(await ensure_image(self), network, marks))
            with told_as(self, "start a network"):
                await self.containers.container(name).start()
            yield
        finally:
            await remove(self, name)

    def container(self, config: JSONObject) -> JSONObject:
        """Return a container's configuration in podman's words."""
        image = str(config["Image"])
        name, facts = self._found.get(image, (image, {}))
        host: Any = config["HostConfig"]
        marks: Any = config.get("Labels") or {}
        options = [_as_file(option, str(marks.get(RUN_LABEL))) for option in host.get("SecurityOpt") or ()]
        options = [*(each for each in options if each != UNLABELLED), UNLABELLED]
        tmpfs = {target: _without_owner(words) for target, words in (host.get("Tmpfs") or {}).items()}
        variables: Any = config.get("Env") or []
        told: dict[str, Any] = {
            **config,
            "Image": name,
            "Env": [each for each in variables if each not in INIT_VARIABLES],  # its init is another
            "HostConfig": {**_with_own_hosts(host), "SecurityOpt": options, "Tmpfs": tmpfs},
        }
        if not (facts.get("Config") or {}).get("Healthcheck"):
            told.pop("Healthcheck", None)  # even one that does nothing costs a timer of systemd's
        return told

    def is_ending(self, failure: aiodocker.DockerError) -> bool:
        """Whether a container could not be removed because it is ending: podman calls that its own mistake."""
        return failure.status == CONFLICT or "container state improper" in str(failure.message)

    async def signal(self, container_id: str, number: int, *, is_here: bool) -> None:
        """Send a signal to the command and its children. podman's init passes it to the command alone."""
        if is_here and number != signal.SIGKILL:
            facts = await self.containers.container(container_id).show()
            if _signal_group(int(facts.get("State", {}).get("Pid", 0)), container_id, number):
                return
        await super().signal(container_id, number, is_here=is_here)

    def absence(self, said: bytes) -> tuple[int, str] | None:
        """Return exit code and reason. podman's init ends with 1 and does not say what it could not start."""
        match = _INIT_SAYS.match(said)
        if match is None:
            return None
        why = match[1].decode(errors="replace")
        return code_of(why), why

    def has_begun(self, command: Mapping[str, Any]) -> bool:
        """Whether a command was started. Of one that has ended podman tells no process, but its exit code."""
        return bool(command.get("Pid")) or command.get("ExitCode") not in (ABSENT, UNUSABLE)

    def is_complaint(self, said: bytes) -> bool:
        """Whether what was said is podman's: a command itself may well end with 126 or 127."""
        return b"OCI " in said or b"Error: " in said


def find_service(env: Mapping[str, str]) -> str:
    """Return the address of the service, "" where none is named and no socket is there. Pure but for the look."""
    if named := env.get("CONTAINER_HOST"):
        return named
    if "podman" in env.get("DOCKER_HOST", ""):
        return env["DOCKER_HOST"]
    return next((f"unix://{path}" for path in _sockets(env) if path.is_socket()), "")


def start_it() -> str:
    """Return what starts the service here, or installs it."""
    if not shutil.which("podman"):
        return "install podman (apt-get install podman), or use --runtime bubblewrap"
    if not SYSTEMD.is_dir():
        return "run: podman system service --time 0 &"
    return f"run: systemctl {'' if os.geteuid() == 0 else '--user '}enable --now podman.socket"


def _sockets(env: Mapping[str, str]) -> Iterator[Path]:
    if uid := os.geteuid():
        yield Path(env.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}", "podman", "podman.sock")
    yield SYSTEM_SOCKET


def _quoted(value: str) -> str:
    return json.dumps(value).replace("$", "\\$")  # or it would be a variable


def _owner(path: str) -> int:
    return Path(path).stat().st_uid


def _as_file(option: str, run_id: str) -> str:
    """Return a security option. A filter is told by a file's name, which podman reads while the container is made."""
    if not option.startswith(SECCOMP):
        return option
    path = find_home().inside(run_id) / "seccomp.json"
    path.write_text(option.removeprefix(SECCOMP), encoding="ascii")
    return f"{SECCOMP}{path}"


def _with_own_hosts(host: Mapping[str, Any]) -> dict[str, Any]:
    """Return a HostConfig that shows the run our file of hosts: podman's has the names that this machine's has.

    Where the engine is to add a name there, with docker, the address that it stands for is used instead.
    """
    kept = {name: value for name, value in host.items() if name != EXTRA_HOSTS}
    if EXTRA_HOSTS in host and not any(mount["Target"] == HOSTS.target for mount in host["Mounts"]):
        kept["Mounts"] = [*host["Mounts"], bind(HOSTS)]
    return kept


def _without_owner(options: str) -> str:
    """Return a tmpfs' options without those that podman refuses. One that is not root's is everybody's then.

    There is nobody else inside. What the image has in that place stays out, as with docker.
    """
    words = [word for word in options.split(",") if not word.startswith(("uid=", "gid="))]
    if "uid=0" not in options.split(","):
        words = ["mode=0777" if word.startswith("mode=") else word for word in words]
    return ",".join((*words, "notmpcopyup"))


def _signal_group(init: int, container_id: str, number: int) -> bool:
    """Signal the command's process group from outside; False where that cannot be done. init: of the container."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        groups = Path(f"/proc/{init}/cgroup").read_text()  # what is not the container's is never signalled
        if len(container_id) != ID_CHARS or f"libpod-{container_id}" not in groups:
            return False
        command = int(Path(f"/proc/{init}/task/{init}/children").read_text().split()[0])
        if os.getpgid(command) == command:
            os.killpg(command, number)
            return True
    return False
