"""What a moat.yaml or an option hides is not there inside, whatever the run does, and stays as it is outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation, installation
from support.places import docker_answers

pytestmark = pytest.mark.timeout(120)
DOCKER = (
    pytest.mark.docker,
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
)
RUNTIMES = [pytest.param("docker", marks=DOCKER), pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)]
HIDDEN = ("top.env", "config/deep/.env", "secrets/key", "keys/a.key")
# Looks for a hidden word in every way that a run has: by name, by another name, from another place, through a link.
SEARCH = """
mv config moved; mv moved/deep moved/deeper
mv top.env else; rm -f top.env; mv secrets away; rmdir secrets; ln keys/a.key hard; umount top.env; mount --bind . /mnt
cat link-to-key further/* /again/top.env /fixtures/k.pem
grep -rs word / --include='*.env' --include='*.key' --include='key' --include='*.pem' --include=hard --include=else
cat top.env secrets/key moved/deeper/.env
echo new > secrets/new && echo new > node_modules/new && echo wrote
ls -A /fixtures
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Installation]:
    with installation() as made:
        made.file("fixtures/k.pem", "word\n")
        made.file("fixtures/seen", "")
        yield made


def workspace(made: Installation, name: str, mode: str) -> Path:
    for path in HIDDEN:
        made.file(f"{name}/{path}", "word\n")
    made.file(f"{name}/further/seen", "")
    made.file(f"{name}/node_modules/x/index.js", "")
    work = made.home / name
    (work / "link-to-key").symlink_to("keys/a.key")
    (work / "away.env").symlink_to("../outside")
    said = {
        "command": ["sh", "-c", SEARCH],
        "workspace": {"mode": mode, "exclude": ["*.env", "secrets/**", "/node_modules", "link-to-*"]},
        "mounts": [
            {"source": "../fixtures", "target": "/fixtures", "exclude": ["*.pem"]},
            {"source": ".", "target": "/again"},
        ],
    }
    return made.file(f"{name}/moat.yaml", json.dumps(said)).parent


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_hidden_is_found_nowhere_inside(made: Installation, runtime: str) -> None:
    work = workspace(made, f"hidden-{runtime}", "bind")

    done = made.run("run", work, "--yes", env={"MOAT_RUNTIME": runtime})

    lines = done.stdout.decode().splitlines()
    assert lines[0] == "wrote", done.stderr
    assert set(lines[1:]) == ({"k.pem", "seen"}), done.stderr
    assert b"looks like" not in done.stderr
    assert (work / "secrets" / "key").read_text() == (work / "top.env").read_text() == "word\n"
    assert not (work / "secrets" / "new").exists()
    assert [path.name for path in (work / "node_modules").iterdir()] == ["x"]
    assert list((made.home / ".moat" / "inside").iterdir()) == []


@pytest.mark.bubblewrap
def test_what_is_hidden_is_not_in_a_copy(made: Installation) -> None:
    work = workspace(made, "hidden-copy", "copy")
    made.file("hidden-copy/.gitignore", "secrets\n")
    show = "ls -A . config/deep; test ! -e top.env"

    done = made.run("run", work, "--yes", "--exclude", "further", "--", "sh", "-c", show,
                    env={"MOAT_RUNTIME": "bubblewrap"})  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().split() == [
        ".:", ".gitignore", "config", "keys", "moat.yaml", "config/deep:"
    ]  # fmt: skip
    assert b"0 files changed in the copy" in done.stderr


@pytest.mark.bubblewrap
def test_a_runtime_that_hides_nothing_says_so(made: Installation) -> None:
    work = made.file("hidden-process/x", "").parent

    done = made.run("run", work, "--exclude", "x", "--runtime", "process", "--", "true")

    assert done.returncode == 2
    assert b"the runtime process hides nothing" in done.stderr
