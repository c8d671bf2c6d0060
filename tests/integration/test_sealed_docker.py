"""A command in a container behind a gate: its streams, its end, its files, and that nothing stays behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from support.docker_place import DockerPlace, docker, docker_place, gate_id, is_there, left_behind
from support.docker_run import FAILED
from support.installation import USER, end, eventually
from support.sealed import RUN_ID

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not is_there(), reason="no container engine with the image"),
]


@pytest.fixture(scope="module", params=["", USER], ids=["root", USER])
def place(request: pytest.FixtureRequest) -> Iterator[DockerPlace]:
    with docker_place(request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_left(place: DockerPlace) -> Iterator[None]:
    yield
    place.clear()
    eventually("everything of the run is removed", lambda: not left_behind())


def test_input_reaches_the_command_and_ends(place: DockerPlace) -> None:
    done = place.run("cat", input=b"one line\n")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"one line\n", b"")


def test_output_goes_on_after_input_has_ended(place: DockerPlace) -> None:
    done = place.run("sh", "-c", "cat >/dev/null; echo late; echo wrong >&2; exit 3", input=b"x")

    assert (done.returncode, done.stdout, done.stderr) == (3, b"late\n", b"wrong\n")


def test_binary_bytes_pass_both_ways_unchanged(place: DockerPlace) -> None:
    data = os.urandom(4_000_000)

    done = place.run("cat", input=data)

    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 77", 77), ("kill -TERM $$", 143), ("no-such-program", 127)]
)
def test_exit_code_is_the_commands(place: DockerPlace, script: str, code: int) -> None:
    assert place.run("sh", "-c", script).returncode == code


def test_a_command_that_the_image_lacks_is_127(place: DockerPlace) -> None:
    assert place.run("no-such-program").returncode == 127


def test_an_interrupt_reaches_the_command_and_its_children(place: DockerPlace) -> None:
    process = place.start("sh", "-c", "sleep 100; exit 9")
    eventually("the run has started", lambda: "caveat" in place.report())

    process.send_signal(signal.SIGUSR1)  # docker_run interrupts the command

    assert process.wait(30) in (130, 9)


def test_a_reader_that_goes_away_ends_the_command(place: DockerPlace) -> None:
    process = place.start("sh", "-c", "while true; do echo again || exit 1; done")
    assert process.stdout is not None
    process.stdout.read(10)

    process.stdout.close()

    assert process.wait(30) != 0


def test_files_in_the_workspace_belong_to_the_invoker(place: DockerPlace) -> None:
    place.run("sh", "-c", "echo made >/workspace/made")

    assert (place.workspace / "made").stat().st_uid == place.workspace.stat().st_uid


def test_home_is_the_runs_own_and_writable_around_what_is_mounted_in_it(place: DockerPlace) -> None:
    given = place.workspace / "given"
    given.write_text("given")
    mounts = [[str(given), "/home/moat/.config/tool/given", True]]

    done = place.run(
        "sh", "-c", "cat ~/.config/tool/given && touch ~/a ~/.config/b ~/.config/tool/c && whoami", mounts=mounts
    )

    assert done.stdout == b"given" + (b"moat\n" if place.user else b"root\n"), done.stderr


def test_a_missing_image_is_refused_before_anything_is_made(place: DockerPlace) -> None:
    done = place.run("true", image="no-such-image:none")

    assert done.returncode == FAILED
    assert place.report() == {"failed": "docker has no image no-such-image:none"}


def test_a_socket_cannot_be_mounted(place: DockerPlace) -> None:
    done = place.run("true", mounts=[["/run/docker.sock", "/data/docker.sock", True]])

    assert done.returncode == FAILED
    assert "holds the socket" in place.report()["failed"]


def test_a_gate_with_a_wrong_nonce_starts_nothing(place: DockerPlace) -> None:
    done = place.run("true", nonce="guessed")

    assert done.returncode == FAILED
    assert place.report()["failed"].startswith("the sandbox was refused: ")


def test_a_gate_whose_proxy_does_not_answer_starts_nothing(place: DockerPlace) -> None:
    done = place.run("true", answer="something else")

    assert done.returncode == FAILED
    assert "the proxy did not answer" in place.report()["failed"]


def test_killing_the_gate_stops_the_run(place: DockerPlace) -> None:
    process = place.start("sleep", "100")
    eventually("the run has started", lambda: "caveat" in place.report())

    docker("kill", gate_id())

    assert process.wait(30) == FAILED
    assert place.report()["failed"] == "the gate ended unexpectedly; the command was stopped"


def test_an_interrupted_launch_leaves_nothing(place: DockerPlace) -> None:
    process = place.start("sleep", "100")
    eventually("the gate runs", gate_id)

    process.send_signal(signal.SIGINT)

    process.communicate(timeout=60)
    assert left_behind() == []


def test_an_interrupted_launcher_leaves_nothing(place: DockerPlace) -> None:
    process = place.start("sleep", "100")
    eventually("the run has started", lambda: "caveat" in place.report())

    process.send_signal(signal.SIGINT)

    process.communicate(timeout=60)
    assert left_behind() == []


def test_killing_the_launcher_ends_the_gate_and_the_rest_can_be_reaped(place: DockerPlace) -> None:
    process = place.start("sleep", "100")
    eventually("the run has started", lambda: "caveat" in place.report())

    end(process)

    eventually("only the command's container is left", lambda: len(left_behind()) == 1)
    reap = "import asyncio; from moat.runtimes.docker import Docker; asyncio.run(Docker().reap('{}'))".format
    for home in (place.root / "another", place.home):
        assert len(left_behind()) == 1
        environment = {"MOAT_HOME": str(home), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        subprocess.run([place.python, "-c", reap(RUN_ID)], env=environment, check=True, timeout=60)
    assert left_behind() == []


def test_no_network_can_be_given_to_a_run_later(place: DockerPlace) -> None:
    place.start("sleep", "100")
    eventually("the run has started", lambda: "caveat" in place.report())

    answers = [docker("network", "connect", "bridge", one) for one in (gate_id(), place.report()["created"])]

    assert all("Error response" in answer for answer in answers), answers


def test_nothing_secret_stands_in_what_the_engine_tells(place: DockerPlace) -> None:
    place.start("sleep", "100")
    eventually("the run has started", lambda: "caveat" in place.report())

    told = docker("inspect", gate_id(), place.report()["created"])

    assert "n0nce" not in told
    assert str(place.home) not in docker("inspect", "-f", "{{json .}}", place.report()["created"])
