"""MySQL and MariaDB beside a run, by a real engine: a real server of Debian's, asked by its own client inside."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from support.docker_place import docker
from support.installation import Installation, end, installation
from support.mysql_image import CLIENT, SERVER, made_images
from support.places import docker_answers

from integration.test_services import containers, nothing_is_left, services_of, volumes, workspace

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
]
DB = {"kind": "mariadb", "image": SERVER}
OLD = {"kind": "mysql", "image": SERVER, "port": 3307, "env": {"MYSQL_USER": "shop", "MYSQL_DATABASE": "shop"}}
ASK = """
set -e
ask() { mariadb --skip-column-names --batch "$@"; }
ask -u "$MYSQL_USER" "$MYSQL_DATABASE" -e 'CREATE TABLE t (a int); INSERT INTO t VALUES (7)'
ask -u "$MARIADB_USER" "$MARIADB_DATABASE" -e 'SELECT a + 1, DATABASE(), SUBSTRING_INDEX(USER(), "@", 1) FROM t'
MYSQL_PWD=$OLD_PASSWORD ask -h "$OLD_HOST" -P "$OLD_PORT" -u "$OLD_USER" "$OLD_DATABASE" -e 'SELECT DATABASE()'
MYSQL_PWD=wrong ask -u root -e 'SELECT 1' 2>&1 | cut -c 1-33
MYSQL_PWD=$OLD_PASSWORD ask -u root -e 'SELECT 1' 2>&1 | cut -c 1-33
printf '%s\\n' "$DATABASE_URL" "$DB_URL" "$OLD_URL" | sed "s/$MYSQL_PWD/PASSWORD/; s/$OLD_PASSWORD/OTHER/"
echo ready
read line
"""


@dataclass(frozen=True)
class Seen:
    """A run with two databases. said: its output. passwords: of both. argv: of every process while it ran."""

    said: list[str]
    told: str
    code: int
    passwords: set[str]
    argv: str
    inspected: str
    kept: str
    volumes: list[str]


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    made_images()
    with installation() as made:
        made.configure({"runtime": "docker", "image": CLIENT})
        made.ok("proxy", "start")
        yield made


@pytest.fixture(scope="module")
def seen(moat: Installation) -> Seen:
    work = workspace(moat, "work", db=DB, old=OLD)
    process = moat.start("run", work, "--yes", "--", "sh", "-c", ASK, stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        said: list[str] = []
        while (line := process.stdout.readline().decode()) and line != "ready\n":
            said.append(line.rstrip())
        assert line, (said, process.communicate()[1].decode())
        made = containers(moat)
        agent = next(each for name, each in made.items() if name.count("-") == 1)
        variables = dict(line.split("=", 1) for line in agent["Config"]["Env"])
        passwords = {variables["DB_PASSWORD"], variables["OLD_PASSWORD"]}
        argv = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
        shown = [{**each, "Config": {**each["Config"], "Env": []}} for each in made.values()]
        kept = "".join(docker("logs", each["Id"]) for each in services_of(made).values())
        _, err = process.communicate(b"go\n", timeout=60)
    finally:
        end(process)
    told = err.decode() + moat.logs()
    return Seen(said, told, process.returncode, passwords, argv, json.dumps(shown), kept, volumes(made))


def test_a_query_inside_finds_each_server_and_its_database(seen: Seen) -> None:
    assert seen.code == 0, seen.told
    assert seen.said == [
        "8\tapp\troot",
        "shop",
        "ERROR 1045 (28000): Access denied",
        "ERROR 1045 (28000): Access denied",
        "mysql://root:PASSWORD@127.0.0.1:3306/app",
        "mysql://root:PASSWORD@127.0.0.1:3306/app",
        "mysql://shop:OTHER@127.0.0.1:3307/shop",
    ]


def test_the_command_begins_when_both_are_ready(seen: Seen) -> None:
    for name in ("db", "old"):
        assert seen.told.index(f"moat: {name} is ready · {SERVER}") < seen.told.index("services: db, old · sealed")


def test_each_password_is_the_runs_own_and_in_no_argument_and_in_nothing_that_is_kept(
    moat: Installation, seen: Seen
) -> None:
    files = [path.read_bytes() for path in (moat.home / ".moat").rglob("*") if path.is_file()]
    everything = seen.told + seen.argv + seen.inspected + seen.kept + "".join(map(repr, files))

    assert "mariadbd" in seen.argv
    assert sorted(map(len, seen.passwords)) == [24, 24]
    assert [each for each in seen.passwords if each in everything] == []


def test_nothing_outlives_the_run(moat: Installation, seen: Seen) -> None:
    assert len(seen.volumes) == 2
    nothing_is_left(moat, *seen.volumes)


def test_a_server_that_does_not_come_up_is_told_with_its_last_words(moat: Installation) -> None:
    work = workspace(moat, "broken", db={**DB, "env": {"MARIADB_ROOT_PASSWORD": ""}})

    done = moat.run("run", work, "--yes", "--", "true")

    assert done.returncode == 1, done.stderr
    assert b"error: the service db ended before it was ready (exit 1):" in done.stderr
    assert b"Database is uninitialized and password option is not specified" in done.stderr
    nothing_is_left(moat)
