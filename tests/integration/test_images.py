"""Images of `dependencies`: built by a real engine from the tests' own registries, by the proxy, and used by runs."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from moat.runtimes.docker_config import HOME_LABEL, labels
from support.docker_place import docker
from support.inside import make_inside
from support.installation import Installation, end, eventually, installation
from support.places import IMAGE, docker_answers
from support.registries import NAME
from support.services import Services, running_services

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
]
BASE = "moat-test-base:1"
HOST = "open.example.com"  # the services want no credential there
SAMPLES = [f"pip:{NAME}==1.0.0", f"apt:{NAME}"]
OURS = (b"19080", b"/dev/moat", b"/etc/moat/", b"s3cr3t", b"HTTPS_PROXY", b"PIP_CERT")


@dataclass(frozen=True)
class Shop:
    """An installation whose internet is the services, and a base image that is set up for their registries."""

    moat: Installation
    services: Services

    def workspace(self, *dependencies: str, command: str = "true", **more: object) -> Path:
        settings = {"base_image": BASE, "dependencies": dependencies, "command": ["sh", "-c", command], **more}
        folder = self.moat.home / f"work-{len(list(self.moat.home.glob('work-*')))}"
        return self.moat.file(f"{folder.name}/moat.yaml", json.dumps(settings)).parent

    def tags(self) -> list[str]:
        return [each["tag"] for each in json.loads(self.moat.ok("image", "list", "--json"))]

    def states(self) -> set[str]:
        return {each["state"] for each in json.loads(self.moat.ok("list", "--json"))}

    def containers(self) -> str:
        mine = labels("", self.moat.home / ".moat")[HOME_LABEL]
        return docker("ps", "-aq", "--filter", f"label={HOME_LABEL}={mine}")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Make the base image: the usual one with pip, and what tells pip and apt where their packages are."""
    folder = tmp_path_factory.mktemp("base")
    make_inside(folder / "inside")
    root = folder / "root"
    shutil.copytree(folder / "inside" / "lib" / "pip", root / "usr" / "lib" / "python3" / "dist-packages" / "pip")
    files = {
        "etc/pip.conf": f"[global]\nindex-url = https://{HOST}/simple/\n",
        "etc/apt/sources.list": f"deb [trusted=yes] https://{HOST}/debian ./\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    made = docker("create", IMAGE, "true")
    docker("cp", f"{root}/.", f"{made}:/")
    docker("commit", "--change", "ENV OF_THE_BASE=kept", "--change", 'CMD ["bash"]', made, BASE)
    docker("rm", made)
    yield BASE
    docker("rmi", BASE)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with running_services(tmp_path_factory.mktemp("projects")) as running:
        yield running


@pytest.fixture
def shop(base: str, services: Services) -> Iterator[Shop]:
    with installation() as moat:
        moat.configure({"runtime": "docker", "image": base, "upstream": services.settings(moat.home)})
        moat.grant("github", "ghp_s3cr3t")
        services.seen.clear()
        made = Shop(moat, services)
        yield made
        for tag in made.tags():
            moat.ok("image", "remove", tag)


def test_an_image_is_built_once_and_used_by_every_run_that_needs_it(shop: Shop) -> None:
    script = f"python3 -c 'import moat_sample; print(moat_sample.GREETING)'; cat /etc/{NAME}; stat -c %u /etc/{NAME}.by"
    work = shop.workspace(*SAMPLES, command=script)

    first = shop.moat.run("run", work, "--yes", timeout_s=120)
    asked = len(shop.services.asked("/"))
    again = shop.moat.run("run", work)
    other = shop.moat.run("run", shop.workspace(*reversed(SAMPLES), command=script), "--yes")

    assert first.stdout.decode().split("\n")[:3] == ["installed by pip", "installed by apt", "65534"], first.stderr
    assert b"building moat/moat-test-base:" in first.stderr
    assert b"==> pip:moat-sample==1.0.0" in first.stderr
    assert again.stdout == other.stdout == first.stdout
    assert b"building" not in again.stderr + other.stderr
    assert len(shop.services.asked("/")) == asked > 0
    assert len(shop.tags()) == 1
    assert shop.containers() == ""


def test_what_is_run_after_the_build_is_in_the_image(shop: Shop) -> None:
    hooks = {"post_build": "id -u > /made\nchown 65534 /made\n[ ! -e /workspace ]"}
    work = shop.workspace(command="cat /made; stat -c %u /made; id -u > /made-too", hooks=hooks)

    done = shop.moat.run("run", work, "--yes", timeout_s=120)
    failed = shop.moat.run("run", shop.workspace(hooks={"post_build": "false"}), "--yes", timeout_s=120)

    assert done.stdout.decode().split() == ["0", "65534"], done.stderr
    assert b"could not be built at post_build (exit 1)" in failed.stderr
    assert len(shop.tags()) == 1


def test_nothing_of_moats_is_in_an_image(shop: Shop, tmp_path: Path) -> None:
    work = shop.workspace(*SAMPLES, grants=["github"])

    tag = shop.moat.ok("image", "build", work, "--yes", timeout_s=120).strip()

    described = docker("image", "inspect", tag) + docker("history", "--no-trunc", tag)
    assert [each for each in OURS[:1] + OURS[3:] if each in described.encode()] == []
    (facts,) = json.loads(docker("image", "inspect", tag))
    assert (facts["Config"]["Env"], facts["Config"]["Cmd"]) == (["OF_THE_BASE=kept"], ["bash"])
    assert not facts["Config"]["Entrypoint"]
    names, data = added(tag, tmp_path)
    assert f"etc/{NAME}" in names
    assert [name for name in names if "moat" in name and NAME not in name.replace("_", "-")] == []
    assert [name for name in names if name.startswith(("dev/", "home/", "root/", "sbin/", "tmp/"))] == []
    authority = (shop.moat.home / ".moat" / "ca" / "ca.pem").read_bytes().splitlines()[2]
    assert [each for each in (*OURS, authority) if each in data] == []


def test_a_build_spends_no_credential_and_is_held_to_the_policy_of_its_run(shop: Shop) -> None:
    work = shop.workspace(f"pip:{NAME}", grants=["github"], network={"policy": "strict"})

    refused = shop.moat.run("run", work, "--yes", timeout_s=120)
    allowed = shop.moat.run("run", work, "--yes", "--allow-host", HOST, timeout_s=120)

    assert refused.returncode == 1
    assert b"--allow-host" in refused.stderr
    assert allowed.returncode == 0, allowed.stderr
    assert {each.header("Authorization") for each in shop.services.asked("/")} == {None}
    builds = [each for each in json.loads(shop.moat.ok("list", "--json")) if each["name"].startswith("image-")]
    assert [each["grants"] for each in builds] == [[], []]


def test_a_step_that_fails_is_named_with_its_last_words_and_nothing_is_left(shop: Shop) -> None:
    work = shop.workspace(f"apt:{NAME}", "pip:moat-absent")

    done = shop.moat.run("run", work, "--yes", timeout_s=120)

    lines = done.stderr.decode().splitlines()
    (error,) = [line for line in lines if line.startswith("error:")]
    assert done.returncode == 1
    assert error.startswith("error: the image could not be built at pip:moat-absent (exit 1): ERROR: No matching dist")
    assert "  ==> apt:moat-sample" in lines
    assert (shop.tags(), shop.containers()) == ([], "")


def test_a_language_that_the_base_image_cannot_have_says_what_to_do(shop: Shop) -> None:
    done = shop.moat.run("run", shop.workspace("python@2.1"), "--yes", timeout_s=120)

    assert done.returncode == 1
    assert b"could not be built at python@2.1" in done.stderr
    assert (shop.tags(), shop.containers()) == ([], "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_a_build_that_is_interrupted_leaves_nothing(shop: Shop, number: signal.Signals) -> None:
    moat = shop.moat.start("run", shop.workspace("apt:moat-endless"), "--yes")
    assert moat.stderr is not None
    with contextlib.closing(moat.stderr):
        until_said(moat.stderr, b"here it hangs")
        moat.send_signal(number)
        code = moat.wait(30)
        end(moat)

    assert code == (130 if number == signal.SIGINT else -number)
    eventually("no container", lambda: shop.containers() == "", 30)
    assert shop.tags() == []
    eventually("no run", lambda: not shop.states() & {"starting", "running"}, 30)


def test_a_rehearsal_shows_the_recipe_and_builds_nothing(shop: Shop) -> None:
    work = shop.workspace(*SAMPLES)

    plan = json.loads(shop.moat.ok("run", work, "--dry-run", "--json"))
    shown = shop.moat.ok("run", work, "--dry-run")

    assert plan["build"]["is_built"] is False
    assert plan["build"]["dependencies"] == sorted(SAMPLES)
    assert f"pip_install -- {NAME}==1.0.0\n" in plan["build"]["recipe"]
    assert f"{plan['image']} is to be built first, from {BASE}" in shown
    assert (shop.tags(), shop.services.asked("/")) == ([], [])


def test_images_are_listed_and_removed(shop: Shop) -> None:
    tag = shop.moat.ok("image", "build", shop.workspace(*SAMPLES), "--yes", timeout_s=120).strip()

    (listed,) = json.loads(shop.moat.ok("image", "list", "--json"))
    table = shop.moat.ok("image", "list")
    foreign = shop.moat.run("image", "remove", IMAGE)

    assert (listed["tag"], listed["base"], listed["dependencies"]) == (tag, BASE, sorted(SAMPLES))
    assert tag in table
    assert (foreign.returncode, b"was not built here" in foreign.stderr) == (2, True)
    assert shop.moat.ok("image", "remove", tag).strip() == tag
    assert "no images yet" in shop.moat.ok("image", "list")


@pytest.mark.bubblewrap
def test_a_runtime_without_images_refuses_before_anything_is_there(shop: Shop) -> None:
    done = shop.moat.run("run", shop.workspace(*SAMPLES), "--yes", "--runtime", "bubblewrap")

    assert done.returncode == 1
    assert b"the runtime bubblewrap starts none" in done.stderr
    assert b"--runtime docker" in done.stderr
    assert json.loads(shop.moat.ok("list", "--json")) == []


def added(tag: str, folder: Path) -> tuple[list[str], bytes]:
    """Return the names that an image adds to the one below it, and the contents of its files."""
    subprocess.run(["docker", "save", "-o", folder / "image.tar", tag], check=True, timeout=120)
    with tarfile.open(folder / "image.tar") as image:
        manifest = image.extractfile("manifest.json")
        assert manifest is not None
        layer = image.extractfile(json.load(manifest)[0]["Layers"][-1])
        assert layer is not None
        with tarfile.open(fileobj=layer) as files:
            members = files.getmembers()
            contents = [found.read() for each in members if each.isreg() and (found := files.extractfile(each))]
    return [each.name for each in members], b"".join(contents)


def until_said(stream: IO[bytes], text: bytes) -> None:
    """Return when a line of stream holds text."""
    seen = []
    for line in stream:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(b"".join(seen).decode())
