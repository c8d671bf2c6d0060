"""Images of services for tests, since none can be pulled: this machine's PostgreSQL and Redis on the usual base image.

They keep to what the official images do: the same variables, a set-up server that listens on no port, data in a volume,
an entrypoint before the command, and root as the user that nobody else was asked for.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from support.docker_place import docker

BASE = "debian:bookworm-slim"
VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]  # one that was made otherwise is another
POSTGRES, REDIS, TOOLS = (f"moat-test-{name}:{VERSION}" for name in ("postgres", "redis", "tools"))
PG = Path("/usr/lib/postgresql/15")
LIBRARIES = f"usr/lib/{os.uname().machine}-linux-gnu"
OWNER = 999  # of both, as in the official images
_PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_isready", "psql")
_GLIBC = ("ld-linux", "libc.so", "libm.so", "libpthread", "libdl.", "librt.", "libresolv", "linux-vdso")
ENTRYPOINT = """#!/bin/sh
set -e
if [ "$(id -u)" = 0 ]; then
    echo "to become another user, an entrypoint needs capabilities" >&2
    exit 1
fi
case "$1" in
postgres)
    if [ -z "$POSTGRES_PASSWORD" ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        exit 1
    fi
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA" || :
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust -N
    rm /tmp/password
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses='' -c unix_socket_directories=/tmp" start
    [ "$POSTGRES_DB" = postgres ] ||
        psql -h /tmp -U "$POSTGRES_USER" -d postgres -qc "CREATE DATABASE \\"$POSTGRES_DB\\""
    pg_ctl -D "$PGDATA" -m fast -w stop
    exec "$@" -c listen_addresses=* -c unix_socket_directories=/tmp
    ;;
-*) set -- redis-server "$@" ;;
esac
exec "$@"
"""


def are_here() -> bool:
    """Whether this machine has the programs."""
    return (PG / "bin" / "postgres").exists() and shutil.which("redis-server") is not None


@cache
def made_images() -> tuple[str, str, str]:
    """Make the images unless they are there; return those of PostgreSQL, of Redis, and one with their clients."""
    names = (POSTGRES, REDIS, TOOLS)
    if all(docker("image", "inspect", "-f", "{{.Os}}", name) == "linux" for name in names):
        return names
    container = docker("create", BASE, "true")
    try:
        subprocess.run(["docker", "cp", "-a", "-", f"{container}:/"], input=_files(), check=True, capture_output=True)
        entry = ("--change", 'ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]')
        data = "/var/lib/postgresql/data"
        of_postgres = ("--change", f"ENV PGDATA={data}", "--change", f"VOLUME {data}", "--change", 'CMD ["postgres"]')
        path = ("--change", f"ENV PATH={PG}/bin:/usr/local/bin:/usr/bin:/bin")
        docker("commit", *path, container, TOOLS)
        docker("commit", *path, *entry, *of_postgres, container, POSTGRES)
        docker("commit", *path, *entry, "--change", "VOLUME /data", "--change", "WORKDIR /data", "--change",
               'CMD ["redis-server"]', container, REDIS)  # fmt: skip
    finally:
        docker("rm", container)
    return names


def _files() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        programs = [
            *(PG / "bin" / name for name in _PROGRAMS),
            *map(Path, ("/usr/bin/redis-server", "/usr/bin/redis-cli")),
        ]
        libraries = [PG / "lib" / f"{name}.so" for name in ("plpgsql", "dict_snowball", "libpqwalreceiver")]
        for path in (*programs, *libraries):
            tar.add(path.resolve(), str(path).lstrip("/"))
        tar.add("/usr/share/postgresql/15", "usr/share/postgresql/15")
        tar.add("/usr/share/zoneinfo", "usr/share/zoneinfo")
        for name, path in sorted(needed(*programs, *libraries)):
            tar.add(path.resolve(), f"{LIBRARIES}/{name}")
        text_file(tar, "usr/local/bin/docker-entrypoint.sh", ENTRYPOINT, 0o755)
        users = Path("/etc/passwd").read_text().splitlines()
        known = "".join(f"{line}\n" for line in users if line.split(":")[0] in ("root", "nobody", "_apt"))
        own = f"postgres:x:{OWNER}:{OWNER}::/var/lib/postgresql:/bin/sh\nredis:x:{OWNER}:{OWNER}::/data:/bin/sh\n"
        text_file(tar, "etc/passwd", known + own, 0o644)
        for name in ("var/lib/postgresql", "var/lib/postgresql/data", "data"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o1777, OWNER, OWNER
            tar.addfile(folder)
    return buffer.getvalue()


def users(own: str) -> str:
    """Return a passwd(5) with own lines after those of every image."""
    lines = Path("/etc/passwd").read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if line.split(":")[0] in ("root", "nobody", "_apt")) + own


def text_file(tar: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    """Add a file of root's."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), mode
    tar.addfile(entry, io.BytesIO(text.encode()))


def needed(*files: Path) -> set[tuple[str, Path]]:
    """Return the shared libraries that files need, by name, but for those of the C library."""

    def listed() -> Iterator[tuple[str, Path]]:
        done = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            if arrow and rest.startswith("/") and not name.startswith(_GLIBC):
                yield name, Path(rest.split()[0])

    return set(listed())
