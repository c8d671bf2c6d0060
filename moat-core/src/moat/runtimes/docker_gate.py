"""The gate as a container of its own: make its image, start it, talk to it until the door is open.

    launcher ══ attached stdin, stdout ══ gate container ══ the door's folder ══ daemon
                                          (no network, no capability, no image but an empty one)

The launcher's death closes the attachment, the engine closes the gate's input, the gate ends and removes itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiodocker

from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket
from moat.runtimes.docker_config import DOOR_INSIDE, GATE_INSIDE, START_INSIDE, GateProgram, gate_container, gate_name
from moat.runtimes.docker_engine import STDOUT, Attachment, create, told_as, uninterrupted
from moat.runtimes.engine import NOT_FOUND, Engine
from moat.runtimes.gatelink import GATE_FLAGS, GATE_SOURCE, DoorUnreached, GateConfig, GateLink

log = logging.getLogger(__name__)

LINE_LIMIT_BYTES = 65_536  # the gate's lines are short; more without an end is not the gate
_FOLDERS = ("dev", "door", "etc", "proc", "sys", "tmp", "usr")
_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib32": "usr/lib32", "lib64": "usr/lib64", "sbin": "usr/sbin"}


class ContainerWire:
    """The gate's standard input and output, as `gatelink.Wire`."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._buffer = bytearray()
        self._complaint = bytearray()

    async def write(self, data: bytes) -> None:
        """Write to the gate's input. Raises OSError when it is gone."""
        await self._attachment.write(data)

    async def readline(self) -> bytes:
        """Return the gate's next line of output, or b"" at its end."""
        while (end := self._buffer.find(b"\n")) < 0 and len(self._buffer) < LINE_LIMIT_BYTES:
            piece = await self._attachment.read()
            if piece is None:
                self._explain()
                return b""
            stream, data = piece
            target = self._buffer if stream == STDOUT else self._complaint
            target += data[:LINE_LIMIT_BYTES]
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line

    async def close(self) -> None:
        """End the gate's input; safe to call twice."""
        self._attachment.end_input()

    def _explain(self) -> None:
        if self._complaint:
            log.warning("the gate complained", extra={"complaint": self._complaint[-2000:].decode(errors="replace")})


def host_program() -> GateProgram:
    """Return the gate's program with the Python that runs moat, and what of the host it needs to see.

    Below /usr everything is there already; a Python that lives elsewhere (pyenv, uv, conda) is shown in its own place.
    """
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    prefix = Path(sys.base_prefix)
    shown = [Path("/usr")]
    if not prefix.is_relative_to("/usr"):
        shown.append(prefix)
    shown += [path for path in (Path("/etc/ld.so.cache"),) if path.is_file()]  # finds libpython in /usr/local/lib
    files = {GATE_SOURCE: GATE_INSIDE, GATE_SOURCE.with_name("gate_start.py"): START_INSIDE}
    compiled = Path(importlib.util.cache_from_source(str(GATE_SOURCE)))
    if compiled.is_file():  # Python looks whether it is that source's; compiling takes it longer than all of the probe
        files[compiled] = f"/__pycache__/{compiled.name}"  # beside GATE_INSIDE
    return GateProgram((str(python), *GATE_FLAGS), tuple(shown), files)


def empty_image() -> tuple[str, bytes]:
    """Return the name and the tar of the gate's image: mount points and the links that /usr replaced, no file at all.

    The name holds the digest of the contents, so a changed image is a new one.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in _FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, target in _LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    data = buffer.getvalue()
    return f"moat-gate:{hashlib.sha256(data).hexdigest()[:12]}", data


async def ensure_image(docker: Engine) -> str:
    """Return the gate's image, imported if the engine does not have it yet. Raises SandboxFailed."""
    name, data = empty_image()
    with told_as(docker, "make the gate's image"):
        if not await docker.facts_of(name):
            await uninterrupted(_import(docker, name, data))
    return name


async def create_gate(docker: Engine, ticket: DoorTicket, user: str, marks: dict[str, str]) -> Gate:
    """Create the run's gate; whoever calls removes it, also when this fails. Raises SandboxFailed."""
    image = await ensure_image(docker)
    has_sockets = any(kind == "unix" for _, kind, _, _ in ticket.places)
    config = gate_container(image, host_program(), ticket.folder, user, marks, has_sockets=has_sockets)
    return Gate(docker, await create(docker, gate_name(ticket.run_id), config))


@contextlib.asynccontextmanager
async def elsewhere_is_unreached(docker: Engine) -> AsyncIterator[None]:
    """Turn SandboxFailed into DoorUnreached when the engine is on another machine: it cannot run our Python at all."""
    try:
        yield
    except SandboxFailed as failure:
        if await _is_elsewhere(docker):
            problem = f"the gate cannot run on that engine: {failure.problem}"
            raise DoorUnreached(problem, hint=failure.hint) from failure
        raise


class Gate:
    """A started gate: open its door once, then watch it."""

    def __init__(self, docker: Engine, container_id: str) -> None:
        self.container_id = container_id
        self.attachment = Attachment(docker, container_id)
        self._docker = docker
        self._container = docker.containers.container(container_id)
        self._link = GateLink(ContainerWire(self.attachment))

    async def start(self) -> None:
        """Attach, then start. Raises SandboxFailed."""
        await self.attachment.open()
        with told_as(self._docker, "start the gate"):
            await self._container.start()

    @property
    def network(self) -> str:
        """What another container joins."""
        return f"container:{self.container_id}"

    async def open_door(self, ticket: DoorTicket) -> None:
        """Hand over the nonce and wait until the daemon has opened the door. Raises SandboxFailed, DoorUnreached."""
        config = GateConfig(
            run_id=ticket.run_id,
            nonce=ticket.nonce,
            door=DOOR_INSIDE,
            place="container",
            argv=None,
            places=ticket.places,
        )
        await self._link.open(config)

    async def watch(self) -> None:
        """Return never; raise SandboxFailed when the gate ends or has lost its daemon."""
        await self._link.wait()
        raise SandboxFailed("the gate said something that is not its protocol", hint="run: moat doctor")

    async def check(self) -> None:
        """Raise SandboxFailed when the gate is gone."""
        with told_as(self._docker, "look after the gate"):
            try:
                facts = await self._container.show()
            except aiodocker.DockerError as failure:
                if failure.status != NOT_FOUND:
                    raise
                facts = {}
        if not facts.get("State", {}).get("Running"):
            raise SandboxFailed("the gate ended unexpectedly; the command was stopped", hint="run: moat doctor")

    async def close(self) -> None:
        """Let the gate end and let go of it. Safe to call twice."""
        await self._link.close()
        await self.attachment.close()


async def _import(docker: Engine, name: str, data: bytes) -> None:
    # aiodocker has no call for it: its import_image is `docker load`, which wants a whole archive with a manifest.
    async with docker._query(
        "images/create",
        "POST",
        params={"fromSrc": "-", "repo": name},
        data=data,
        headers={"Content-Type": "application/x-tar"},
    ) as response:
        await response.read()


async def _is_elsewhere(docker: Engine) -> bool:
    """Whether the engine runs on another kernel than this process: on another machine, or in a virtual one."""
    with told_as(docker, "answer"):
        version = await docker.version()
    return str(version.get("KernelVersion")) != os.uname().release
