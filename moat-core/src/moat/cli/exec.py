"""`moat exec`: one more command in a live run's sandbox, as if the run itself had started it.

moat exec RUN [options] -- COMMAND…        everything after the first `--` is the command, untouched
"""

from __future__ import annotations

import asyncio
import os

import click

from moat.api.errors import UsageError
from moat.api.runtimes import Stdio
from moat.cli.dashes import DashedCommand, after_dashes
from moat.cli.known import complete_live_runs
from moat.cli.reach import live_run
from moat.paths import find_home
from moat.runs.attach import Attachment, fill_closed, own_terminal
from moat.runs.execute import execute
from moat.runs.reach import connected


@click.command("exec", cls=DashedCommand)
@click.argument("name", metavar="RUN", shell_complete=complete_live_runs)
@click.option("-t", "--tty", is_flag=True, help="Fail where there is no terminal to lend; one that is there is lent.")
@click.pass_context
def exec_(ctx: click.Context, name: str, tty: bool) -> int:
    """Start another command in a live run, under the same seal.

    It sees what the run sees and may what the run may, and no more. It ends with the run, or when this command line
    goes; the run does not end with it. The exit code is the command's.
    """
    fill_closed()
    argv = after_dashes(ctx)
    if not argv:
        raise UsageError("the command must stand after --", hint=f"run: moat exec {name} -- COMMAND")
    if tty and not os.isatty(0):
        raise UsageError("-t: the input is no terminal", hint="leave -t away to pipe into the command")
    home, stdio = find_home(), Stdio(0, 1, 2)
    sock = connected(home, live_run(home, name))
    return asyncio.run(execute(sock, argv, Attachment(stdio), own_terminal(stdio)))
