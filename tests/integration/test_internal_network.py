"""Runs on an engine that no door reaches: an internal network, a proxy by token, and a caveat."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.docker_place import DockerPlace, docker_place, is_there, left_behind
from support.docker_run import TOKEN
from support.installation import eventually

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not is_there(), reason="no container engine with the image"),
]
NO_DOOR = {"MOAT_DOCKER_DOOR": "none"}
ASK_THE_ENGINE = """
import socket
query = bytes.fromhex("0001010000010000000000000765 78616d706c6503636f6d0000010001".replace(" ", ""))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
sock.sendto(query, ("127.0.0.11", 53))
try:
    print("code", sock.recv(512)[3] & 15)
except OSError as failure:
    print("silence")
"""


@pytest.fixture(scope="module")
def place() -> Iterator[DockerPlace]:
    with docker_place("") as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_left(place: DockerPlace) -> Iterator[None]:
    yield
    place.clear()
    eventually("everything of the run is removed, its network too", lambda: not left_behind())


def test_the_proxy_is_reached_by_token(place: DockerPlace) -> None:
    done = place.run("sh", "-c", "echo $http_proxy; curl -sS -m 20 http://example.test/", variables=NO_DOOR)

    assert done.returncode == 0, done.stderr
    proxy, answer = done.stdout.decode().split()
    assert (TOKEN in proxy, answer) == (True, "token")


def test_the_launcher_is_told_what_cannot_be_promised(place: DockerPlace) -> None:
    place.run("true", variables=NO_DOOR)

    assert "no door on this engine" in place.report()["caveat"]


def test_nothing_beyond_the_network_answers(place: DockerPlace) -> None:
    done = place.run("curl", "-sS", "--noproxy", "*", "-m", "3", "http://198.51.100.1/", variables=NO_DOOR)

    assert done.returncode in (7, 28), done.stderr  # no connection, or nothing in time


def test_the_engines_resolver_tells_nothing(place: DockerPlace) -> None:
    done = place.run("python3", "-c", ASK_THE_ENGINE, variables=NO_DOOR)

    assert done.stdout in (b"silence\n", b"code 2\n", b"code 3\n", b"code 5\n"), done.stdout


def test_a_door_that_is_not_reached_leads_here(place: DockerPlace) -> None:
    empty = place.root / "no-door"
    empty.mkdir(exist_ok=True)

    done = place.run("curl", "-sS", "-m", "20", "http://example.test/", door=str(empty))

    assert done.stdout == b"token", done.stderr
    assert "no door on this engine" in place.report()["caveat"]
