"""Writes docs/reference/commands.md from the commands themselves. `--check` says whether the page is up to date.

Run after changing a command: .venv/bin/python scripts/commands_page.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from moat.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "commands.md"
HEAD = """# Commands

Made by `scripts/commands_page.py` from `--help`; do not edit by hand.

Exit codes: `moat run` exits with its command's own; 1 when moat failed, 2 for a wrong command line, 130 after Ctrl-C.
"""


def pages(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the section of a command and of everything below it. Commands of plugins are left out."""
    yield f"\n## {context.command_path}\n\n```\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from pages(below, click.Context(below, info_name=name, parent=context, terminal_width=100))


def page() -> str:
    """Return the whole page."""
    return HEAD + "".join(pages(cli, click.Context(cli, info_name="moat", terminal_width=100)))


def main() -> int:
    """Write the page, or compare it; return the exit code."""
    if "--check" in sys.argv:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
