from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.installation import Installation, installation


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        yield made


@pytest.mark.parametrize("text", ["", "command: [make]"], ids=["no file", "a file without any"])
def test_there_is_nothing_to_build_without_dependencies(moat: Installation, text: str) -> None:
    work = moat.file("work/moat.yaml", text).parent
    if not text:
        (work / "moat.yaml").unlink()

    done = moat.run("image", "build", work)

    assert done.returncode == 2
    assert b"asks for no image of its own" in done.stderr


def test_nothing_is_built_without_a_yes(moat: Installation) -> None:
    work = moat.file("work/moat.yaml", json.dumps({"dependencies": ["node@22", "pip:ruff"]})).parent

    done = moat.run("image", "build", work)

    assert done.returncode == 2
    assert b"have an image built with node@22, pip:ruff" in done.stderr
    assert b"nobody can be asked here" in done.stderr


def test_an_engine_that_does_not_answer_is_no_empty_list(moat: Installation) -> None:
    done = moat.run(
        "image", "list", env={"DOCKER_HOST": "unix:///nowhere.sock", "CONTAINER_HOST": "unix:///nowhere.sock"}
    )

    assert done.returncode == 1
    assert b"the runtime docker cannot be asked" in done.stderr
