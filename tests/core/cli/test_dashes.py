from __future__ import annotations

import click
from click.testing import CliRunner
from moat.cli.dashes import DashedCommand, after_dashes


@click.command("try", cls=DashedCommand)
@click.argument("word", required=False, metavar="[WORD]")
@click.option("-x", is_flag=True)
@click.pass_context
def attempt(ctx: click.Context, word: str | None, x: bool) -> None:
    click.echo(f"{word} {x} {after_dashes(ctx)}")


def said(*words: str) -> str:
    return CliRunner().invoke(attempt, words).output.strip()


def test_what_stands_after_the_first_dashes_is_left_alone() -> None:
    assert said("w", "-x", "--", "ls", "-x", "--", "y") == "w True ('ls', '-x', '--', 'y')"


def test_no_dashes_and_nothing_after_them_are_told_apart() -> None:
    assert said("w") == "w False None"
    assert said("w", "--") == "w False ()"


def test_the_usage_names_the_command() -> None:
    assert "[WORD] [OPTIONS] -- COMMAND..." in said("--help")
