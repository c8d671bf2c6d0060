"""An image of MariaDB for tests, since none can be pulled: this machine's server and clients on the usual base image.

It keeps to what the official images of MariaDB and MySQL do: either's variables, a set-up server that listens on no
port, data in a volume, an entrypoint that puts its server before options, and the user `mysql`, who needs no root.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from support.docker_place import docker
from support.service_images import BASE, LIBRARIES, OWNER, needed, text_file, users

VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]  # one that was made otherwise is another
SERVER, CLIENT = (f"moat-test-{name}:{VERSION}" for name in ("mariadb", "mariadb-client"))
_PROGRAMS = tuple(f"/usr/{name}" for name in ("sbin/mariadbd", "bin/mariadb", "bin/mariadb-admin",
                                              "bin/my_print_defaults", "bin/resolveip"))  # fmt: skip
_AS_THEY_ARE = ("/usr/bin/mariadb-install-db", "/usr/share/mysql")
_ALSO_CALLED = {"mysql": "mariadb", "mysqladmin": "mariadb-admin"}
ENTRYPOINT = """#!/bin/sh
set -e
if [ "$(id -u)" = 0 ]; then
    echo "to become another user, an entrypoint needs capabilities" >&2
    exit 1
fi
case "$1" in
-*) set -- mariadbd "$@" ;;
esac
if [ "$1" = mariadbd ]; then
    root="${MARIADB_ROOT_PASSWORD:-$MYSQL_ROOT_PASSWORD}"
    database="${MARIADB_DATABASE:-$MYSQL_DATABASE}"
    user="${MARIADB_USER:-$MYSQL_USER}"
    password="${MARIADB_PASSWORD:-$MYSQL_PASSWORD}"
    if [ -z "$root" ]; then
        echo "[ERROR] [Entrypoint]: Database is uninitialized and password option is not specified" >&2
        exit 1
    fi
    mariadb-install-db --auth-root-authentication-method=normal --skip-test-db >/dev/null
    socket=/tmp/set-up.sock
    mariadbd --skip-networking --socket="$socket" &
    until mariadb-admin --socket="$socket" -u root --silent ping 2>/dev/null; do sleep 0.1; done
    {
        echo "CREATE USER 'root'@'%' IDENTIFIED BY '$root';"
        echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
        echo "ALTER USER 'root'@'localhost' IDENTIFIED BY '$root';"
        [ -z "$database" ] || echo "CREATE DATABASE \\`$database\\`;"
        if [ -n "$user" ]; then
            echo "CREATE USER '$user'@'%' IDENTIFIED BY '$password';"
            echo "GRANT ALL ON \\`$database\\`.* TO '$user'@'%';"
        fi
    } | mariadb --socket="$socket" -u root
    MYSQL_PWD="$root" mariadb-admin --socket="$socket" -u root shutdown
    wait
    set -- "$@" --socket=/tmp/mysql.sock
fi
exec "$@"
"""


def are_here() -> bool:
    """Whether this machine has the programs."""
    return all(shutil.which(name) is not None for name in (*_PROGRAMS, *_AS_THEY_ARE[:1]))


@cache
def made_images() -> tuple[str, str]:
    """Make the images unless they are there; return the server's, and one with the client alone."""
    if all(docker("image", "inspect", "-f", "{{.Os}}", name) == "linux" for name in (SERVER, CLIENT)):
        return SERVER, CLIENT
    container = docker("create", BASE, "true")
    try:
        subprocess.run(["docker", "cp", "-a", "-", f"{container}:/"], input=_files(), check=True, capture_output=True)
        docker("commit", container, CLIENT)
        docker("commit", "--change", 'ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]',
               "--change", 'CMD ["mariadbd"]', "--change", "VOLUME /var/lib/mysql", container, SERVER)  # fmt: skip
    finally:
        docker("rm", container)
    return SERVER, CLIENT


def _files() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in _PROGRAMS:
            tar.add(Path(name).resolve(), name.lstrip("/"))
        for name in _AS_THEY_ARE:
            tar.add(name, name.lstrip("/"))
        for name, path in sorted(needed(*map(Path, _PROGRAMS))):
            tar.add(path.resolve(), f"{LIBRARIES}/{name}")
        for name, other in _ALSO_CALLED.items():
            link = tarfile.TarInfo(f"usr/bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, other
            tar.addfile(link)
        text_file(tar, "usr/local/bin/docker-entrypoint.sh", ENTRYPOINT, 0o755)
        text_file(tar, "etc/passwd", users(f"mysql:x:{OWNER}:{OWNER}::/var/lib/mysql:/bin/sh\n"), 0o644)
        folder = tarfile.TarInfo("var/lib/mysql")
        folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o1777, OWNER, OWNER
        tar.addfile(folder)
    return buffer.getvalue()
