"""The services that are known by name, and reading what a user writes of one: `postgres@16`, `db=postgres@16`. Pure.

A kind says what its official image wants (port, variables, user) and gives: when it is ready, and where clients look.
In its texts {password}, {user}, {database} and {port} stand for a run's own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from moat.api.errors import UsageError
from moat.api.services import Service

MOST = 16
DOOR_PORTS = (53, 80, 443, 19080)  # taken in every run, by its resolver and the proxy
NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
IMAGE = r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}"
_VERSION = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"  # of a tag; docs.docker.com/reference/cli/docker/image/tag
# Arguments are seen by whoever looks at the machine's processes: the password comes by standard input.
_REDIS = 'exec redis-server - "$@" <<END\nrequirepass $REDISCLI_AUTH\nEND'
_SHAPE = "write postgres@16, or NAME=postgres@16"


@dataclass(frozen=True, slots=True)
class Kind:
    """A service that is known.

    version: of the image, where none is asked for. user: who runs it, by the image's name for it: no root is needed.
    env: of the service. with_user: the same, where the user is another than the usual. names: the variables of env that
    hold user and database, which a user may set. argv: {} for what the image says; ready: as in Service. url: for
    clients. given: the variables that the kind's own clients read.
    """

    image: str
    version: str
    port: int
    user: str
    ready: tuple[str, ...]
    url: str
    env: Mapping[str, str]
    with_user: Mapping[str, str] = field(default_factory=dict)
    account: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    is_database: bool = True


def _mysql(image: str, version: str, admin: str) -> Kind:
    """Return MySQL, or MariaDB, whose image has other names for the same."""
    prefix = image.upper()
    return Kind(
        image=image,
        version=version,
        port=3306,
        user="mysql",
        ready=(admin, "ping", "--silent", "-h", "127.0.0.1", "-P", "{port}"),
        url="mysql://{user}:{password}@127.0.0.1:{port}/{database}",
        env={f"{prefix}_ROOT_PASSWORD": "{password}", f"{prefix}_DATABASE": "{database}"},
        with_user={f"{prefix}_USER": "{user}", f"{prefix}_PASSWORD": "{password}"},
        account="root",
        names={"user": f"{prefix}_USER", "database": f"{prefix}_DATABASE", "password": f"{prefix}_PASSWORD"},
        argv=("--port={port}",),  # the image's entrypoint puts its server before options
        given={"MYSQL_HOST": "127.0.0.1", "MYSQL_TCP_PORT": "{port}", "MYSQL_PWD": "{password}",
               "MYSQL_PORT": "{port}", "MYSQL_USER": "{user}", "MYSQL_PASSWORD": "{password}",
               "MYSQL_DATABASE": "{database}"},  # programs read these of MariaDB too
    )  # fmt: skip


KINDS: Mapping[str, Kind] = {
    "postgres": Kind(
        image="postgres",
        version="17",
        port=5432,
        user="postgres",
        ready=("pg_isready", "-q", "-h", "127.0.0.1", "-p", "{port}", "-U", "{user}", "-d", "{database}"),
        url="postgresql://{user}:{password}@127.0.0.1:{port}/{database}",
        env={"POSTGRES_USER": "{user}", "POSTGRES_PASSWORD": "{password}", "POSTGRES_DB": "{database}",
             "PGPORT": "{port}"},
        account="postgres",
        names={"user": "POSTGRES_USER", "database": "POSTGRES_DB", "password": "POSTGRES_PASSWORD"},
        given={"PGHOST": "127.0.0.1", "PGPORT": "{port}", "PGUSER": "{user}", "PGPASSWORD": "{password}",
               "PGDATABASE": "{database}"},
    ),
    "mysql": _mysql("mysql", "8.4", "mysqladmin"),
    "mariadb": _mysql("mariadb", "11", "mariadb-admin"),
    "redis": Kind(
        image="redis",
        version="7",
        port=6379,
        user="redis",
        ready=("redis-cli", "-h", "127.0.0.1", "-p", "{port}", "ping"),
        url="redis://default:{password}@127.0.0.1:{port}/0",
        env={"REDISCLI_AUTH": "{password}"},
        argv=("sh", "-c", _REDIS, "redis-server", "--port", "{port}"),
        given={"REDISCLI_AUTH": "{password}"},
        is_database=False,
    ),
}  # fmt: skip


def parse_service(text: str) -> Service:
    """Return the service that an option's text names. Raises UsageError."""
    name, equals, wanted = text.rpartition("=")
    if equals and re.fullmatch(NAME, name) is None:
        raise UsageError(f"--service {text!r} has no name that a service can have", hint=_SHAPE)
    try:
        return known_service(wanted, name)
    except ValueError as refused:
        raise UsageError(f"--service {text}: {refused}", hint=_SHAPE) from None


def known_service(
    text: str,
    name: str = "",
    *,
    image: str = "",
    port: int = 0,
    env: Mapping[str, str] | None = None,
    ready: tuple[str, ...] = (),
    args: tuple[str, ...] = (),
    user: str = "",
) -> Service:
    """Return the service of text, `KIND` or `KIND@VERSION`, under a name, else its kind's; the rest is as asked for.

    Raises ValueError for a kind or a version that is none.
    """
    kind, at, version = text.partition("@")
    known = KINDS.get(kind)
    if known is None:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(KINDS)}; any other has image and port"
        raise ValueError(f"{kind!r} is no service that is known here; {hint}")
    if at and re.fullmatch(_VERSION, version) is None:
        raise ValueError(f"{version!r} is no version of {kind}")
    if at and image:
        raise ValueError(f"the image {image} has its version already: leave out @{version}")
    image = image or f"{known.image}:{version or known.version}"
    return Service(name or kind, image, port or known.port, kind, dict(env or {}), ready, args, user or known.user)


def checked_services(services: Iterable[Service]) -> tuple[Service, ...]:
    """Return services if all can stand in one network. Raises ValueError, saying which two cannot."""
    found = tuple(services)
    owners: dict[int, str] = {}
    prefixes: dict[str, str] = {}
    for each in found:
        if each.port in DOOR_PORTS:
            raise ValueError(f"{each.name} cannot be at port {each.port}: the proxy or the resolver of a run is there")
        if (other := owners.setdefault(each.port, each.name)) != each.name:
            raise ValueError(f"{other} and {each.name} both want port {each.port}: give one of them another")
        if (other := prefixes.setdefault(each.prefix, each.name)) != each.name:
            raise ValueError(f"{other} and {each.name} have variables of the same names: call one of them otherwise")
    return found
