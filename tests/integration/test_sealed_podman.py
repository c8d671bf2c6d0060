"""What podman is told is what it does: one run on the machine's service, and one on a user's own."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Iterator

import pytest
from core.runs.repositories import a_repository
from moat.runtimes.podman_engine import HOSTS
from support.installation import USER, Installation, end, eventually, installation
from support.podman_place import TINY, WITH_PODMAN, podman, rootless_service

pytestmark = [*WITH_PODMAN, pytest.mark.timeout(120)]
NO_DOOR = {"MOAT_DOCKER_DOOR": "none"}
HOLDS = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"
SEAL = f"{HOLDS}; cat /proc/net/dev; unshare -U true && echo made one"
LIVE = "trap 'echo got it; exit 42' INT; sleep 5533 & echo up; wait; echo not this"


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.file("work/made", "")
        yield made


def holds(said: str) -> None:
    """Fail unless no capability is held, no new privilege is to be had, the filter is on, and there is lo alone."""
    lines = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    assert {int(value, 16) for name, value in lines.items() if name.startswith("Cap")} == {0}
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
    assert "made one" not in said
    assert set(re.findall(r"^ *(\w+): ", said, re.MULTILINE)) == {"lo"}


def test_a_run_is_sealed_and_so_is_what_is_brought_into_it(moat: Installation) -> None:
    process = moat.start("run", "work", "--runtime", "podman", "--name", "box", "--", "bash", "-c", f"{SEAL}; {LIVE}")
    try:
        eventually("the run lives", lambda: "box" in moat.run("list").stdout.decode())
        assert process.stdout is not None
        said, line = b"", b"-"
        while line and not said.endswith(b"up\n"):
            line = process.stdout.readline()
            said += line
        holds(said.decode())
        holds(moat.run("exec", "box", "--", "sh", "-c", SEAL).stdout.decode())

        absent = moat.run("exec", "box", "--", "no-such-command")
        ended = moat.run("exec", "box", "--", "sh", "-c", "echo said; exit 127")
        run = json.loads(moat.ok("list", "--json"))[0]
        facts = json.loads(podman("inspect", f"moat-{run['run_id']}", f"moat-{run['run_id']}-gate"))
        process.send_signal(2)
        rest, err = process.communicate(timeout=30)
    finally:
        end(process)

    assert (absent.returncode, b"could not start the command" in absent.stderr) == (127, True)
    assert (ended.returncode, ended.stdout) == (127, b"said\n")
    agent, gate = facts
    assert [each["HostConfig"]["CapDrop"] != [] for each in facts] == [True, True]
    assert gate["HostConfig"]["ReadonlyRootfs"]
    assert (gate["HostConfig"]["NetworkMode"], agent["HostConfig"]["NetworkMode"]) == (
        "none",
        f"container:{gate['Id']}",
    )
    assert all(each["HostConfig"]["LogConfig"]["Type"] == "none" for each in facts)
    assert (rest, process.returncode) == (b"got it\n", 42), err
    assert podman("ps", "-a", "-q", "--filter", f"label=moat.run={run['run_id']}") == ""


def test_what_cannot_be_started_ends_as_in_a_shell(moat: Installation) -> None:
    done = moat.run("run", "work", "--runtime", "podman", "--", "no-such-command")

    assert done.returncode == 127
    assert b"cannot start no-such-command: No such file or directory" in done.stderr


def test_an_image_is_built_listed_and_removed(moat: Installation) -> None:
    moat.file("built/moat.yaml", json.dumps({"runtime": "podman", "hooks": {"post_build": "echo made > /made"}}))
    done = moat.run("run", "built", "--yes", "--", "cat", "/made")
    listed = json.loads(moat.ok("image", "list", "--json"))
    tags = [each["tag"] for each in listed]
    try:
        config = json.loads(podman("inspect", *tags))[0]["Config"]

        assert done.stdout == b"made\n", done.stderr
        assert [(each["base"], each["dependencies"]) for each in listed] == [("debian:bookworm-slim", [])]
        assert (config["Labels"]["moat.run"], config.get("Entrypoint"), config["Cmd"]) == ("", None, ["bash"])
        assert "proxy" not in str(config).lower()
    finally:
        moat.ok("image", "remove", *tags)
    assert json.loads(moat.ok("image", "list", "--json")) == []


def test_services_stand_beside_a_run(moat: Installation) -> None:
    server = {"image": "debian:bookworm-slim", "port": 7001, "args": ["python3", "-m", "http.server", "7001"]}
    moat.file("served/moat.yaml", json.dumps({"runtime": "podman", "services": {"web": server}}))
    ask = "curl -sS -m 20 -o /dev/null -w '%{http_code}' http://$WEB_HOST:$WEB_PORT/"

    done = moat.run("run", "served", "--yes", "--name", "served", "--", "sh", "-c", ask)
    server["args"] = ["python3", "-c", "print('its last words'); raise SystemExit(3)"]
    moat.file("failing/moat.yaml", json.dumps({"runtime": "podman", "services": {"web": server}}))
    failed = moat.run("run", "failing", "--yes", "--name", "failing", "--", "true")

    assert (done.stdout, done.returncode) == (b"200", 0), done.stderr
    assert b"web is ready" in done.stderr
    assert b"ended before it was ready (exit 3)" in failed.stderr
    assert b"its last words" in failed.stderr
    for run in json.loads(moat.ok("list", "-a", "--json")):
        assert podman("ps", "-a", "-q", "--filter", f"label=moat.run={run['run_id']}") == ""


def test_without_a_door_the_proxy_is_reached_by_token_and_that_is_said(moat: Installation) -> None:
    words = ("run", "work", "--runtime", "podman", "--name", "doorless", "--policy", "strict", "--", "sh", "-c")
    script = "cat /etc/hosts; curl -sS -m 20 -o /dev/null -w '%{http_code}\n' http://denied.example/"
    done = moat.run(*words, f"{script}; curl -sS --noproxy '*' -m 3 http://198.51.100.1/", env=NO_DOOR)

    *hosts, code = done.stdout.decode().splitlines()
    assert (code, done.returncode in (7, 28)) == ("403", True), done.stderr
    assert hosts == HOSTS.source.read_text().splitlines()
    assert b"no door on this engine" in done.stderr
    assert b"NOT sealed" in done.stderr
    runs = {each["name"]: each["run_id"] for each in json.loads(moat.ok("list", "-a", "--json"))}
    of_this_run = ("-q", "--filter", f"label=moat.run={runs['doorless']}")
    assert podman("network", "ls", *of_this_run) + podman("ps", "-a", *of_this_run) == ""


def test_a_users_own_service_holds_sealed_runs_of_theirs() -> None:
    script = f"touch made; echo own > /home/moat/file; id -u; {HOLDS}; cat /proc/net/dev"
    with rootless_service() as service, installation(USER, XDG_RUNTIME_DIR=str(service.root)) as moat:
        work = moat.file("work/given", "").parent
        words = ("run", work, "--runtime", "podman", "--image", TINY)
        done = moat.run(*words, "--name", "mine", "--", "sh", "-c", script)
        doorless = moat.run(*words, "--", "true", env=NO_DOOR)

        assert done.returncode == 0, done.stderr
        assert (doorless.returncode, b"no proxy can be reached from podman" in doorless.stderr) == (1, True)
        assert "podman · permissive · no grants · sealed ✓" in done.stderr.decode()
        assert done.stdout.startswith(b"0\n")  # root inside is the user outside
        holds(done.stdout.decode())
        assert (work / "made").stat().st_uid == pwd.getpwnam(USER).pw_uid
        assert podman("ps", "-a", "-q", url=service.url) == ""


def test_a_worktrees_commits_come_back_from_a_users_own_service() -> None:
    with rootless_service() as service, installation(USER, XDG_RUNTIME_DIR=str(service.root)) as moat:
        project = a_repository(moat.home / "project")
        for path in (project, *project.rglob("*")):
            os.chown(path, pwd.getpwnam(USER).pw_uid, pwd.getpwnam(USER).pw_gid)
        script = "echo changed > file && git add file && git commit --quiet -m made && git log --format=%s"
        words = ("wt", "topic", "--runtime", "podman", "--image", TINY, "--", "sh", "-c", script)
        done = moat.run(*words, cwd=project)

        assert (done.returncode, done.stdout) == (0, b"made\nfirst\n"), done.stderr
        assert b"topic \xc2\xb7 1 new commit" in done.stderr
        branch = (project / ".git/refs/heads/topic").read_text().strip()
        assert (moat.home / "project.worktrees/topic/file").stat().st_uid == pwd.getpwnam(USER).pw_uid
        assert (project / ".git/objects" / branch[:2] / branch[2:]).exists() or list(project.rglob("*.pack"))


def test_who_may_not_use_the_machines_service_is_told_of_their_own() -> None:
    with installation(USER, XDG_RUNTIME_DIR="/nowhere") as moat:
        work = moat.file("work/given", "").parent
        done = moat.run("run", work, "--runtime", "podman", "--", "true")

    assert done.returncode != 0
    assert b"the runtime podman cannot be used: podman could not answer" in done.stderr
    assert b"podman" in done.stderr.splitlines()[-1]
