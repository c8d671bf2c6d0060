"""The agents' images, built as a user's are: from the real registries, by the proxy, on first use; then used.

moat claude -p … ─▶ gate and door, no grant ─▶ proxy ─▶ Debian, PyPI, npm ─▶ image ─▶ the run, with the stand-in's login
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api import AgentProvider
from moat_provider_claude.agent import ClaudeCode
from moat_provider_codex.agent import CodexAgent
from support.anthropic_api import KEY as ANTHROPIC_KEY
from support.anthropic_api import Anthropic
from support.docker_place import docker
from support.installation import ROOTS, Installation, installation
from support.openai_api import KEY as OPENAI_KEY
from support.openai_api import OpenAI
from support.places import IMAGE, docker_answers
from support.vendors import Vendor, running

SOURCES = Path("/etc/apt/sources.list.d")
BASE = "moat-test-real-base:1"
# A registry may be a mirror that only this network has.
PRIVATE = ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "192.0.2.0/24",
           "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"]  # fmt: skip

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(590),
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Make the base image: the usual one, with this machine's own sources of packages, as one that was pulled has."""
    folder = tmp_path_factory.mktemp("base") / "etc" / "apt" / "sources.list.d"
    folder.mkdir(parents=True)
    for file in SOURCES.glob("debian.*"):
        shutil.copy(file, folder)
    made = docker("create", IMAGE, "true")
    docker("cp", f"{folder.parents[2]}/.", f"{made}:/")
    docker("commit", made, BASE)
    docker("rm", made)
    yield BASE
    docker("rmi", BASE)


@contextlib.contextmanager
def house(vendor: Vendor, base: str) -> Iterator[Installation]:
    """An installation whose internet is the real one, but for the vendor's hosts."""
    with running(vendor), installation() as moat:
        upstream = vendor.settings(moat.home)
        bundle = Path(str(upstream["ca_bundle"]))
        bundle.write_text(bundle.read_text() + Path(ROOTS).read_text())
        moat.configure({"runtime": "docker", "image": base, "upstream": {**upstream, "allow_cidrs": PRIVATE}})
        yield moat
        for image in json.loads(moat.ok("image", "list", "--json")):
            moat.ok("image", "remove", image["tag"])


@pytest.mark.parametrize(
    ("provider", "grant", "key", "vendor"),
    [(ClaudeCode(), "anthropic", ANTHROPIC_KEY, Anthropic), (CodexAgent(), "openai", OPENAI_KEY, OpenAI)],
    ids=["claude", "codex"],
)
def test_an_agents_image_is_built_on_first_use_from_the_real_registries(
    base: str, provider: AgentProvider, grant: str, key: str, vendor: type[Anthropic] | type[OpenAI]
) -> None:
    service = vendor()
    with house(service, base) as moat:
        moat.grant(grant, key)
        work = moat.file("work/.made", "").parent

        process = moat.start(provider.name, work, "-p", "hello there")
        begun, shown_before = told_until(process, b"==> apt:git"), list(service.shown)
        is_under_way = process.poll() is None
        out, rest = process.communicate(timeout=560)
        again = moat.run(provider.name, work, "-p", "hello again")

        told = (begun + rest).decode()
        assert process.returncode == 0, told
        assert b"hello, you said: hello there" in out
        assert f"about {provider.size_mb} MB are fetched, which takes a minute or two" in told.split("==> ")[0]
        assert is_under_way
        steps = [line.strip().removeprefix("==> ") for line in told.splitlines() if line.strip().startswith("==> ")]
        assert steps == ["apt:git", "node@22", provider.dependencies[-1], "post_build", "tidy up"]
        assert b"hello, you said: hello again" in again.stdout
        assert b"building" not in again.stderr
        (image,) = json.loads(moat.ok("image", "list", "--json"))
        built = f"image-{image['tag'].rpartition(':')[2]}"
        trace = json.loads(moat.ok("trace", "--json", built))
        assert {tuple(each["grants"]) for each in trace} == {()}
        assert [each["grants"] for each in json.loads(moat.ok("list", "--all", "--json")) if each["name"] == built] == [
            []
        ]
        assert shown_before == []
        fetched_mb = sum(each["response_bytes"] for each in trace) / 1e6
        assert provider.size_mb / 2 < fetched_mb < provider.size_mb * 2, fetched_mb


def told_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Return what a command said on standard error up to the line that has text; all of it where there is none."""
    assert process.stderr is not None
    said = b""
    while text not in said and (line := process.stderr.readline()):
        said += line
    return said
