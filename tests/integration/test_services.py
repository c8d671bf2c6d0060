"""Services beside a run, by a real engine, with real servers and their own clients inside."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from moat.runtimes.docker_config import HOME_LABEL, labels
from moat.runtimes.podman_engine import SYSTEM_SOCKET
from support.docker_place import docker
from support.installation import Installation, end, eventually, installation
from support.places import docker_answers
from support.podman_place import podman
from support.service_images import POSTGRES, REDIS, TOOLS, made_images

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
]
DB = {"kind": "postgres", "image": POSTGRES, "env": {"POSTGRES_DB": "shop"}}
CACHE = {"kind": "redis", "image": REDIS, "args": ["--maxmemory", "7mb"]}
PLAIN = {"image": REDIS, "port": 7001, "user": "redis", "args": ["--port", "7001"]}
ASK = """
set -e
psql -Atc 'CREATE TABLE t (a int)' -c 'INSERT INTO t VALUES (7)' -c 'SELECT a, current_database(), current_user FROM t'
psql "$DATABASE_URL" -Atc 'SELECT a + 1 FROM t'
redis-cli ping
redis-cli -u "$CACHE_URL" --no-auth-warning config get maxmemory
env -u REDISCLI_AUTH redis-cli ping
env -u REDISCLI_AUTH redis-cli -h "$PLAIN_HOST" -p "$PLAIN_PORT" ping
echo ready
read line
"""
INSIDE = """
cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '
ls /door /workspace /etc/moat 2>/dev/null
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t' | tr '\\n' ' '
id -u
"""


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    made_images()
    with installation() as made:
        made.configure({"runtime": "docker", "image": TOOLS})
        made.ok("proxy", "start")
        yield made


def workspace(moat: Installation, name: str, **services: object) -> Path:
    return moat.file(f"{name}/moat.yaml", json.dumps({"services": services})).parent


def containers(moat: Installation) -> dict[str, Any]:
    """Return what the engine knows of the installation's containers, by name."""
    mine = labels("", moat.home / ".moat")[HOME_LABEL]
    found = docker("ps", "-aq", "--filter", f"label={HOME_LABEL}={mine}").split()
    listed = json.loads(docker("inspect", *found)) if found else []
    return {each["Name"].lstrip("/"): each for each in listed if isinstance(each, dict)}


def is_one_running(moat: Installation) -> bool:
    return any(each["State"]["Running"] for each in services_of(containers(moat)).values())


def volumes(facts: dict[str, Any]) -> list[str]:
    return [mount["Name"] for each in facts.values() for mount in each["Mounts"] if mount["Type"] == "volume"]


def nothing_is_left(moat: Installation, *names: str) -> None:
    eventually("no container is left", lambda: not containers(moat))
    for name in names:  # the engine removes them after their container
        eventually(f"the volume {name} is gone", lambda name=name: docker("volume", "inspect", name).startswith("[]"))


@dataclass(frozen=True)
class Seen:
    """A run with services, as it was seen. said: its output. made: its containers, by name.

    looked, kept: by service. argv: of every process of this machine meanwhile.
    """

    said: list[str]
    told: str
    code: int
    made: dict[str, Any]
    looked: dict[str, str]
    kept: dict[str, str]
    argv: str

    @property
    def agent(self) -> Any:
        return next(each for name, each in self.made.items() if name.count("-") == 1)

    @property
    def services(self) -> dict[str, Any]:
        return services_of(self.made)


def services_of(made: dict[str, Any]) -> dict[str, Any]:
    return {name.rpartition("-")[2]: each for name, each in made.items() if "-service-" in name}


@pytest.fixture(scope="module")
def seen(moat: Installation) -> Seen:
    """Run something with three services, look at them from outside meanwhile, and let it end."""
    work = workspace(moat, "work", db=DB, cache=CACHE, plain=PLAIN)
    process = moat.start("run", work, "--yes", "--", "sh", "-c", ASK, stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        said: list[str] = []
        while (line := process.stdout.readline().decode()) and line != "ready\n":
            said.append(line.strip())
        made = containers(moat)
        services = services_of(made)
        looked = {name: docker("exec", each["Id"], "sh", "-c", INSIDE) for name, each in services.items()}
        kept = {name: docker("logs", each["Id"]) for name, each in services.items()}
        argv = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
        _, err = process.communicate(b"go\n", timeout=60)
    finally:
        end(process)
    return Seen(said, err.decode() + moat.logs(), process.returncode, made, looked, kept, argv)


def test_clients_inside_find_their_servers(seen: Seen) -> None:
    assert seen.code == 0, seen.told
    assert seen.said[-7:] == ["8", "PONG", "maxmemory", "7340032", "NOAUTH Authentication required.", "", "PONG"]
    assert "7|shop|postgres" in seen.said
    assert f"moat: db is ready · {POSTGRES}" in seen.told
    assert "services: db, cache, plain · sealed" in seen.told


def test_services_are_held_as_the_command_is_and_see_less(seen: Seen) -> None:
    gate = next(each["Id"] for name, each in seen.made.items() if name.endswith("-gate"))
    same = ("SecurityOpt", "PidsLimit", "UsernsMode", "RestartPolicy", "PidMode", "IpcMode", "CapDrop", "CapAdd",
            "Memory", "Privileged", "Devices", "GroupAdd")  # fmt: skip
    wanted = {key: seen.agent["HostConfig"][key] for key in same}
    for each in seen.services.values():
        host = each["HostConfig"]
        assert host["NetworkMode"] == f"container:{gate}"
        assert {key: host[key] for key in same} == wanted
        binds = {mount["Destination"] for mount in each["Mounts"] if mount["Type"] == "bind"}
        assert binds == {"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"}
    assert wanted["CapDrop"] == ["ALL"]
    sealed = "CapEff:0000000000000000 CapBnd:0000000000000000 NoNewPrivs:1 Seccomp:2"
    assert set(seen.looked.values()) == {f"lo\n{sealed} 999"}


def test_passwords_are_the_runs_own_and_are_written_nowhere(moat: Installation, seen: Seen) -> None:
    lines = [line.partition("=") for line in seen.agent["Config"]["Env"]]
    passwords = {value for name, _, value in lines if name in ("PGPASSWORD", "REDISCLI_AUTH")}
    files = [path.read_bytes() for path in (moat.home / ".moat").rglob("*") if path.is_file()]
    everything = seen.told + "".join(seen.kept.values()) + "".join(map(repr, files))

    assert [len(each) for each in passwords] == [24, 24]
    assert [each for each in passwords if each in everything] == []


def test_passwords_are_no_arguments(seen: Seen) -> None:
    lines = [line.partition("=") for line in seen.agent["Config"]["Env"]]
    passwords = {value for name, _, value in lines if name in ("PGPASSWORD", "REDISCLI_AUTH")}
    given = [(each["Args"], each["Config"]["Cmd"], each["Config"]["Entrypoint"]) for each in seen.services.values()]

    assert "redis-server" in seen.argv
    assert [each for each in passwords if each in seen.argv + repr(given)] == []


def test_nothing_outlives_the_run(moat: Installation, seen: Seen) -> None:
    assert volumes(seen.made)
    nothing_is_left(moat, *volumes(seen.made))


def test_a_service_that_does_not_come_up_is_told_with_its_last_words(moat: Installation) -> None:
    work = workspace(moat, "broken", db={**DB, "env": {"POSTGRES_PASSWORD": ""}}, cache=CACHE)

    done = moat.run("run", work, "--yes", "--", "true")

    assert done.returncode == 1, done.stderr
    assert b"error: the service db ended before it was ready (exit 1):" in done.stderr
    assert b"  Error: Database is uninitialized and superuser password is not specified." in done.stderr
    assert b"sealed" not in done.stderr
    nothing_is_left(moat)


def test_a_service_that_cannot_be_asked_is_told_at_once(moat: Installation) -> None:
    done = moat.run(
        "run", workspace(moat, "mute", cache={**CACHE, "ready": ["no-such-program"]}), "--yes", "--", "true"
    )

    problem = b"error: whether the service cache is ready cannot be seen: no-such-program does not run in it"
    assert problem in done.stderr
    nothing_is_left(moat)


def test_an_image_that_cannot_be_had_is_told_before_anything_is_made(moat: Installation) -> None:
    work = workspace(moat, "absent", db={**DB, "image": "moat-test.invalid/absent:1"})

    done = moat.run("run", work, "--yes", "--name", "absent", "--", "true")
    plan = json.loads(moat.ok("run", work, "--dry-run", "--json", "--", "true"))

    assert b"moat: fetching moat-test.invalid/absent:1, once" in done.stderr
    assert b"error: docker could not pull moat-test.invalid/absent:1: " in done.stderr
    assert b"hint: run: docker pull moat-test.invalid/absent:1" in done.stderr
    assert "absent" not in moat.ok("list", "-a")
    (service,) = plan["services"]
    assert (service["name"], service["is_there"], service["port"]) == ("db", False, 5432)
    assert plan["variables"]["DATABASE_URL"]["value"] == "postgresql://postgres:(generated)@127.0.0.1:5432/shop"


@pytest.mark.parametrize("runtime", ["bubblewrap", "process"])
def test_a_runtime_without_services_refuses_before_anything_is_made(moat: Installation, runtime: str) -> None:
    work = workspace(moat, f"on-{runtime}", db=DB)

    done = moat.run("run", work, "--yes", "--runtime", runtime, "--name", f"on-{runtime}", "--", "true")

    assert done.returncode != 0
    assert f"error: the runtime {runtime} holds no services here (db)".encode() in done.stderr
    assert f"on-{runtime}" not in moat.ok("list", "-a")


def test_a_run_that_is_called_off_or_killed_while_it_waits_leaves_nothing(moat: Installation) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        work = workspace(moat, f"waits-{code}", cache={**CACHE, "ready": ["false"]})
        process = moat.start("run", work, "--yes", "--", "true")
        try:
            eventually("the service runs", lambda: is_one_running(moat), 60)
            made = containers(moat)
            process.send_signal(number)
            assert process.wait(60) == code
        finally:
            end(process)
        nothing_is_left(moat, *volumes(made))


def test_a_service_that_ended_before_its_run_is_told(moat: Installation) -> None:
    work = workspace(moat, "short", cache=CACHE)

    done = moat.run("run", work, "--yes", "--", "sh", "-c", "redis-cli shutdown nosave; redis-cli ping; true")

    assert done.returncode == 0
    assert b"moat: the service cache ended before the run did (exit 0): " in done.stderr
    assert b"Redis is now ready to exit, bye bye" in done.stderr
    nothing_is_left(moat)


def test_a_run_in_the_background_tells_what_it_waits_for_and_ends_with_its_services(moat: Installation) -> None:
    work = workspace(moat, "behind", cache=CACHE)

    begun = moat.run("run", work, "--yes", "-d", "--name", "behind", "--", "sh", "-c", "redis-cli ping; sleep 600")
    eventually("it has asked", lambda: "PONG" in moat.ok("logs", "behind"), 30)
    made = containers(moat)
    moat.ok("stop", "behind")

    assert f"moat: cache is ready · {REDIS}".encode() in begun.stderr
    nothing_is_left(moat, *volumes(made))


@pytest.mark.podman
def test_podman_holds_services_too(moat: Installation) -> None:
    if not podman("image", "inspect", "-f", "{{.Os}}", REDIS).startswith("linux"):
        given = subprocess.run(["docker", "save", REDIS, TOOLS], capture_output=True, check=True).stdout
        load = ["podman", "--url", f"unix://{SYSTEM_SOCKET}", "load"]
        subprocess.run(load, input=given, capture_output=True, check=True)
    work = workspace(moat, "podman", cache=CACHE)
    command = ("sh", "-c", "redis-cli ping; redis-cli shutdown nosave")

    done = moat.run("run", work, "--yes", "--runtime", "podman", "--name", "by-podman", "--", *command)

    assert done.stdout.strip() == b"PONG", done.stderr.decode() + moat.logs()
    assert f"moat: cache is ready · {REDIS}".encode() in done.stderr
    assert b"moat: the service cache ended before the run did (exit 0): " in done.stderr
    assert "Redis is now ready to exit, bye bye" in moat.ok("logs", "by-podman", "--service", "cache")
    (run,) = (each for each in json.loads(moat.ok("list", "-a", "--json")) if each["name"] == "by-podman")
    of_this_run = ("--filter", f"label=moat.run={run['run_id']}", "--format", "{{.Names}}")
    eventually("no container is left", lambda: not podman("ps", "-a", *of_this_run), 30)
