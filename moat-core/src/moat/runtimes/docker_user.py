"""Give the run's user a name inside: an image knows only its own users, and many programs want one (ssh, node, whoami).

image's /etc/passwd ──▶ one line more ──▶ the created container's /etc/passwd, before it starts
"""

from __future__ import annotations

import io
import tarfile

import aiodocker

from moat.runtimes.docker_engine import told_as
from moat.runtimes.engine import NOT_FOUND, Engine

NAME = "moat"
_PATH = "/etc/passwd"
_LIMIT_BYTES = 1024 * 1024


def with_user(passwd: str, user: str, home: str) -> str | None:
    """Return passwd with a line for user, `uid:gid`; None when it names that uid already, or the name is taken."""
    uid, gid = user.split(":")
    entries = [line.split(":") for line in passwd.splitlines()]
    if any(entry[0] == NAME or entry[2:3] == [uid] for entry in entries):
        return None
    head = passwd if not passwd or passwd.endswith("\n") else f"{passwd}\n"
    return f"{head}{NAME}:x:{uid}:{gid}::{home}:/bin/sh\n"


async def name_user(docker: Engine, container_id: str, user: str, home: str) -> None:
    """Add user to a created container. Raises SandboxFailed."""
    with told_as(docker, "name the run's user"):
        container = docker.containers.container(container_id)
        text = with_user(await _passwd(container), user, home)
        if text is not None:
            data = archive("passwd", text.encode(errors="surrogateescape"))
            await container.put_archive("/etc", data)  # type: ignore[no-untyped-call] # aiodocker declares no types


def archive(name: str, data: bytes) -> bytes:
    """Return a tar with one file, readable by everybody and owned by root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), 0o644
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


async def _passwd(container: aiodocker.containers.DockerContainer) -> str:
    """Return the image's users; nothing where it has no such file, or one that is no plain file of reasonable size."""
    try:
        tar = await container.get_archive(_PATH)
    except aiodocker.DockerError as failure:
        if failure.status == NOT_FOUND:
            return ""
        raise
    with tar:
        entry = tar.next()
        file = tar.extractfile(entry) if entry is not None and entry.isreg() and entry.size < _LIMIT_BYTES else None
        return file.read().decode(errors="surrogateescape") if file is not None else ""
