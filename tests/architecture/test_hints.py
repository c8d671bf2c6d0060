"""Every `run: moat …` that an error or a list proposes can be typed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
from moat.cli.main import cli

from architecture.tree import relative, sources

HINT = re.compile(r"(?:run|take one|with): moat ([a-z]+)((?: [a-z]+)?)((?: --?[a-z-]+)*)")
NAMED = {"audit", "wt"}  # groups that take a run's or a branch's name in the place of a command


def hints() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yield file, command, the word after it, and the options that follow at once."""
    for path in sources():
        for name, word, options in HINT.findall(path.read_text()):
            yield relative(path), name, word.strip(), tuple(each for each in options.split() if each != "--")


def test_hints_are_found_at_all() -> None:
    assert len(list(hints())) > 50


@pytest.mark.parametrize(("file", "name", "word", "options"), sorted(set(hints())))
def test_a_hint_names_a_command_that_there_is(file: str, name: str, word: str, options: tuple[str, ...]) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None, f"{file}: there is no moat {name}"
    if isinstance(command, click.Group) and word and name not in NAMED:
        command = command.get_command(context, word)
        assert command is not None, f"{file}: there is no moat {name} {word}"
    known = {text for param in command.get_params(context) for text in (*param.opts, *param.secondary_opts)}
    assert {*options} <= known, f"{file}: moat {name} {word} has no {options}"
