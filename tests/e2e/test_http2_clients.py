"""Clients that speak only HTTP/2, unconfigured inside of runs: gRPC of two makes, git over a bridge, and those of four
languages that could speak either and are told to offer nothing else.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import git_server
from support.client_matrix import API, BODY, LIBRARIES, MODULES, NODE, PLACE, PROGRAMS
from support.inside import BROUGHT
from support.inside import PLACE as INSIDE
from support.places import Place
from support.services import Services, expected

from e2e.conftest import SECRET, make_place

HOST = "uploads.github.com"
TARGET = f"{HOST}:443"
MOUNT = ("--mount", f"{BROUGHT}:{PLACE}:ro")
SENT = hashlib.sha256(BODY.encode()).hexdigest()
AUTHOR = "-c user.name=agent -c user.email=agent@example.com"

pytestmark = pytest.mark.skipif(not (BROUGHT / "ready").exists(), reason="no clients are here; run: scripts/clients.sh")


@pytest.fixture(scope="module")
def place(services: Services, inside: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place in which a host that gets the token is a gRPC server, which demands it."""
    certificate = tmp_path_factory.mktemp("grpc") / "grpc.pem"
    certificate.write_bytes(b"".join(services.ca.leaf((HOST,), expired=False)))
    authorization = expected("api.github.com", f"{SECRET}-bubblewrap-root")
    argv = [sys.executable, "-m", "support.grpc_program", "serve", str(certificate), authorization]
    server = subprocess.Popen(argv, stdin=-1, stdout=-1, cwd=Path(__file__).parents[1])
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = json.loads(server.stdout.readline())["port"]
        with make_place("bubblewrap", "", services, inside, {HOST: f"127.0.0.1:{port}"}) as made:
            yield made
    finally:
        server.stdin.close()  # the program ends with its standard input
        server.stdout.close()
        server.wait(20)


@pytest.mark.bubblewrap
def test_grpcio_calls_streams_and_reads_trailers(place: Place) -> None:
    assert _grpcio(place, "Hello", "world") == {
        "answer": "hello world",
        "code": "OK",
        "trailers": {"x-trail": "the end"},
    }
    assert _grpcio(place, "Count", "500") == {"count": 500, "last": "499", "trailers": {"x-trail": "counted"}}
    assert _grpcio(place, "Echo", "20", "10000") == {"count": 20, "same": True}


@pytest.mark.bubblewrap
def test_grpc_js_calls_streams_and_reads_trailers(place: Place) -> None:
    output = _ok(place, f"{NODE} {PROGRAMS}/grpc.cjs {TARGET}", MODULES)

    assert json.loads(output) == {
        "hello": "hello world",
        "helloTrail": "the end",
        "count": 500,
        "countTrail": "counted",
    }


@pytest.mark.bubblewrap
def test_a_git_push_of_unknown_length_arrives_over_http2(place: Place) -> None:
    project = f"{place.fresh_path('git-h2').strip('/').replace('/', '-')}/app.git"
    git_server.make_project(place.services.projects, project)
    clone = f"git clone --quiet $BRIDGE/{project}"
    script = (
        f"{clone} copy && cd copy && head -c 3000000 /dev/urandom > big && git add big"
        f" && git {AUTHOR} commit --quiet -m large && git push --quiet && cd .."
        f" && {clone} other && cmp copy/big other/big && echo same"
    )

    output = _ok(place, f"{NODE} {PROGRAMS}/git_bridge.cjs github.com '{script}'")

    assert output == "same\n"
    assert git_server.log(place.services.projects / project) == ["large", "first"]
    pushed = [each for each in place.services.asked(f"/{project}/git-receive-pack") if each.method == "POST"]
    assert "chunked" in [each.header("Transfer-Encoding") for each in pushed]
    place.assert_spent(f"/{project}", "github.com")


@pytest.mark.bubblewrap
@pytest.mark.parametrize("proxy", ["", "127.0.0.1:19080"], ids=["by address", "by the proxy"])
def test_go_that_offers_nothing_else_is_served_http2(place: Place, proxy: str) -> None:
    if shutil.which("go") is None:
        pytest.skip("this machine has no go")
    get, post = _paths(place, "go")

    output = _ok(place, f"{INSIDE}/h2_only {API}{get} {API}{post} '{BODY}' {proxy}")

    _assert_h2(place, output, get, post)


@pytest.mark.bubblewrap
def test_httpx_that_offers_nothing_else_is_served_http2(place: Place) -> None:
    get, post = _paths(place, "httpx")

    libraries = {"PYTHONPATH": f"{PLACE}/python:{INSIDE}/lib"}
    output = _ok(place, f"python3 {PROGRAMS}/h2_only.py {API}{get} {API}{post} '{BODY}'", libraries)

    _assert_h2(place, output, get, post)


@pytest.mark.bubblewrap
@pytest.mark.parametrize("proxy", ["", "127.0.0.1:19080"], ids=["by address", "by the proxy"])
def test_node_streams_packed_bodies_over_http2_and_the_service_unpacks_them(place: Place, proxy: str) -> None:
    """As Codex does, whose requests are packed with zstd, where it speaks HTTP/2; it is no program of the tests."""
    get, post = _paths(place, "node")

    told = json.loads(_ok(place, f"{NODE} {PROGRAMS}/h2_only.mjs {API} {get} {post} {proxy}"))

    assert (told["version"], told["get"]["status"]) == ("h2", 200)
    for coding in ("zstd", "gzip"):
        assert told[coding]["status"] == 200
        assert json.loads(told[coding]["body"])["sha256"] == told[coding]["sent"]
    assert [each.header("Content-Encoding") for each in place.services.asked(post)] == ["zstd", "gzip"]
    place.assert_spent(get)
    place.assert_spent(post)


@pytest.mark.bubblewrap
@pytest.mark.parametrize("way", ["", "--noproxy '*'"], ids=["by the proxy", "by address"])
def test_curl_that_may_speak_http2_is_served_what_the_proxy_chooses(place: Place, way: str) -> None:
    get, post = _paths(place, "curl")
    version = "-w '\\n%{http_version}\\n'"

    both = _ok(place, f"curl -sS --http2 {way} {version} {API}{get} && curl -sS --http2 {way} {version} "
                      f"-d '{BODY}' {API}{post}")  # fmt: skip

    assert both.splitlines()[1::2] == ["1.1", "1.1"]  # it offers both
    assert SENT in both
    place.assert_spent(get)
    place.assert_spent(post)


def _paths(place: Place, what: str) -> tuple[str, str]:
    path = place.fresh_path(f"h2-{what}")
    return path, f"/upload{path}"


def _assert_h2(place: Place, output: str, get: str, post: str) -> None:
    fetched, sent = output.splitlines()
    assert fetched.startswith("200 HTTP/2")
    assert sent.startswith("200 HTTP/2")
    assert get in fetched
    assert SENT in sent
    place.assert_spent(get)
    place.assert_spent(post)


def _grpcio(place: Place, *words: str) -> Any:
    called = f"python3 {PROGRAMS}/grpc_program.py call {TARGET} {' '.join(words)}"
    return json.loads(_ok(place, called, LIBRARIES))


def _ok(place: Place, script: str, env: dict[str, str] | None = None) -> str:
    set_env = [word for name, value in (env or {}).items() for word in ("-e", f"{name}={value}")]
    return place.ok("sh", "-c", script, flags=(*MOUNT, *set_env))
