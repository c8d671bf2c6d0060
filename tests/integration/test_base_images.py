"""Any image will do, with nothing of ours in it; one that will not is told in a line, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator

import pytest
from support.docker_place import docker
from support.installation import Installation, installation
from support.places import IMAGE, docker_answers

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
]
BARE, STRANGE = "moat-test-bare:1", "moat-test-strange:1"  # without a shell; with one for a machine that is not
STRANGE_ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xff\xff\x01\x00\x00\x00" + bytes(4096)


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    an_image(BARE, "file")
    an_image(STRANGE, "bin/sh")
    try:
        with installation() as made:
            made.file("work/given", "")
            made.configure({"runtime": "docker"})
            yield made
    finally:
        docker("rmi", "-f", BARE, STRANGE)


def an_image(name: str, path: str) -> None:
    """Make an image of one program."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(STRANGE_ELF), 0o755
        tar.addfile(entry, io.BytesIO(STRANGE_ELF))
    subprocess.run(["docker", "import", "-", name], input=buffer.getvalue(), check=True, capture_output=True)


def left_behind(moat: Installation) -> str:
    runs = [each["run_id"] for each in json.loads(moat.ok("list", "--json"))]
    return "".join(docker("ps", "-aq", "--filter", f"label=moat.run={run_id}") for run_id in runs)


@pytest.mark.parametrize(
    ("image", "command", "code", "told"),
    [
        ("moat-test-absent:1", "true", 1, b"docker has no image moat-test-absent:1\nhint: run: docker pull"),
        ("Absent::1", "true", 1, b"Absent::1 is no name of an image\nhint: write it as in debian:bookworm-slim"),
        (BARE, "true", 127, b"moat: cannot start true: No such file or directory (in the image moat-test-bare:1)"),
        (STRANGE, "sh", 126, b"moat: cannot start sh: Exec format error (in the image moat-test-strange:1)"),
    ],
    ids=["an image that is not there", "no name", "no such program", "a program of another machine"],
)
def test_what_cannot_be_started_is_told_in_a_line(
    moat: Installation, image: str, command: str, code: int, told: bytes
) -> None:
    done = moat.run("run", "work", "--image", image, "--", command)

    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert left_behind(moat) == ""


def test_an_image_without_a_shell_cannot_be_built_upon_and_says_so(moat: Installation) -> None:
    moat.file("built/moat.yaml", json.dumps({"base_image": BARE, "hooks": {"post_build": "true"}}))
    done = moat.run("run", "built", "--yes", "--", "true")

    assert done.returncode == 1
    assert (
        b"error: the image moat-test-bare:1 has no /bin/sh, which dependencies and hooks.post_build are" in done.stderr
    )
    assert left_behind(moat) == ""
    assert json.loads(moat.ok("image", "list", "--json")) == []


def test_an_image_with_nothing_of_ours_in_it_holds_a_run(moat: Installation) -> None:
    done = moat.run("run", "work", "--image", IMAGE, "--", "sh", "-c", "ls /workspace")

    assert (done.returncode, done.stdout) == (0, b"given\n"), done.stderr
