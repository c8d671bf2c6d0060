from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import click
import pytest
from moat.cli import run_options
from moat.cli.dashes import after_dashes
from moat.cli.run import run
from moat.cli.run_options import Typed, read

OPTIONS = [each for each in run.params if isinstance(each, click.Option)]
MANY_LINES = 4_000


def read_by_click(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str]) -> Typed | None:
    """Return what click reads of the same, None for a mistake, for help, and where no command is given."""
    for name in ("MOAT_PROFILE", "MOAT_RUNTIME", "MOAT_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    try:
        with run.make_context("run", list(arguments[1:])) as context:
            given = dict(context.params)
            return Typed(given.pop("words"), after_dashes(context) or (), given)
    except (click.ClickException, click.exceptions.Exit):
        return None


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--", "true"],
        ["run", ".", "--name", "x", "--", "ls", "-l", "--", "--name", "y"],
        ["run", "--name=x", "--name", "y", "-e", "A=1", "--env", "B=2", "--env=C=3", "--", "env"],
        ["run", "--runtime", "", "--rule", "-x", "--policy", "strict", "--", "true"],
        ["run", "-t", "-T", "--snapshot", "--no-snapshot", "-d", "-y", "--json", "", "--", "true"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_plain_command_line_is_read_as_click_reads_it(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(arguments, {}) == read_by_click(arguments, monkeypatch, {}) is not None


def test_any_command_line_is_read_as_click_reads_it_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for each in OPTIONS for name in (*each.opts, *each.secondary_opts)]
    words = [*names, *(f"{name}=v" for name in names), "v", "A=1", "strict", "", "-", "-eA=1", "-dt", "--nam", "--help",
             "-h", "-q", "--"]  # fmt: skip
    rng = random.Random(7)  # noqa: S311 # the same lines each time
    plain = 0
    for _ in range(MANY_LINES):
        arguments = ["run", *rng.choices(words, k=rng.randint(0, 5)), "--", *rng.choices(words, k=rng.randint(1, 2))]
        if (typed := read(arguments, {})) is not None:
            plain += 1
            assert typed == read_by_click(arguments, monkeypatch, {}), arguments

    assert plain > MANY_LINES / 10


@pytest.mark.parametrize("env", [{"MOAT_RUNTIME": "docker", "MOAT_PROFILE": "work"}, {"MOAT_IMAGE": ""}], ids=str)
def test_variables_stand_for_options_that_are_not_given(
    env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (["run", "--", "true"], ["run", "--runtime", "podman", "--image", "i", "--", "true"]):
        assert read(arguments, env) == read_by_click(arguments, monkeypatch, env)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["list"], ["run"], ["run", "x"], ["run", "--"], ["run", "--help", "--", "true"],
     ["run", "-eA=1", "--", "true"], ["run", "-dt", "--", "true"], ["run", "--policy", "lax", "--", "true"],
     ["run", "--yes=1", "--", "true"], ["run", "--name", "--", "true"]],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)  # fmt: skip
def test_everything_else_is_for_click(arguments: list[str]) -> None:
    assert read(arguments, {}) is None


def test_every_option_of_run_is_known_here_by_its_every_name() -> None:
    known = {*run_options.ONE, *run_options.MANY, *run_options.FLAGS}

    assert known == {name for each in OPTIONS for name in (*each.opts, *each.secondary_opts)}
    assert {each.name: each.envvar for each in OPTIONS if each.envvar} == {
        name: variable for name, variable in run_options.ONE.values() if variable
    }
