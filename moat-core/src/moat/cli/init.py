"""`moat init`: a moat.yaml to begin with. Writes one new file and never touches one that is there."""

from __future__ import annotations

import os
from pathlib import Path

import click

from moat.api.errors import UsageError
from moat.cli.output import say, show
from moat.config.template import TEMPLATE


@click.command("init")
@click.argument("folder", default=".", metavar="[PATH]")
@click.option("--schema", "wants_schema", is_flag=True, help="Print the JSON schema of moat.yaml and write nothing.")
def init(folder: str, wants_schema: bool) -> None:
    """Write a moat.yaml in which everything is explained and nothing is set."""
    from moat.config.project import NAME, schema_text

    if wants_schema:
        show(schema_text().rstrip("\n"))
        return
    path = Path(folder) / NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        problem = f"{path} is there already, and is left as it is"
        raise UsageError(problem, hint="edit it; what it may say: moat init --schema") from None
    except OSError as failure:
        problem = f"{path} cannot be written: {os.strerror(failure.errno or 0)}"
        raise UsageError(problem, hint="run: moat init FOLDER") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(TEMPLATE)
    say(f"moat: wrote {path}; take the # from what you want")
