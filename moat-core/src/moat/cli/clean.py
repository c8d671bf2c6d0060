"""`moat destroy` and `moat clean`: forget runs that are over. Nothing of a live run is touched."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import timedelta

import click

from moat.api.errors import MoatError, UsageError
from moat.cli.known import complete_runs
from moat.cli.output import say, show, show_json
from moat.cli.reach import settled
from moat.cli.runs import live_ids
from moat.paths import find_home
from moat.runs.remains import Remains, of_run, old_runs, remove, strays
from moat.trace.store import RunStore

OLD = "30d"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"(\d{1,6})([smhdw])")


@click.command("destroy")
@click.argument("names", metavar="RUN...", shell_complete=complete_runs, nargs=-1, required=True)
def destroy(names: tuple[str, ...]) -> None:
    """Forget runs that have ended: their record, what they did on the network, what they printed."""
    home = find_home()
    doomed = []
    for name in names:
        info = settled(home, RunStore(home).find(name))
        remains = of_run(home, info, live_ids(home))
        if remains is None:
            raise UsageError(f"{info.name} is {info.state}", hint=f"run: moat stop {info.name}")
        doomed.append(remains)
    _remove(doomed)


@click.command("clean")
@click.option("--older-than", "age", default=OLD, show_default=True, metavar="AGE", help="Runs that ended before.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "in_json", is_flag=True, help="With --dry-run: as JSON.")
def clean(age: str, dry_run: bool, yes: bool, in_json: bool) -> None:
    """Remove what is kept of old runs, and what crashes left behind. Says what, and asks first."""
    if in_json and not dry_run:
        raise UsageError("--json goes with --dry-run only", hint="run: moat clean --dry-run --json")
    home = find_home()
    for info in () if dry_run else RunStore(home).list():
        settled(home, info)
    live = live_ids(home)
    doomed = [*old_runs(home, as_time(age), live), *strays(home, live)]
    if in_json:
        show_json([{"what": each.what, "path": str(each.path), "bytes": each.size} for each in doomed])
        return
    for each in doomed:
        show(f"{shown_size(each.size):>9}  {each.what}")
    if not doomed:
        show("there is nothing to clean")
    elif not dry_run:
        again = "moat clean --yes" if age == OLD else f"moat clean --older-than {age} --yes"
        confirm(f"remove {shown_size(sum(each.size for each in doomed))}?", yes=yes, again=again)
        _remove(doomed)


def as_time(age: str) -> timedelta:
    """Return the time that an age means: `30d`, `12h`, `0s`. Raises UsageError."""
    match = _AGE.fullmatch(age)
    if match is None:
        raise UsageError(f"{age!r} is no age", hint="write 30d, 12h or 90m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def confirm(question: str, *, yes: bool, again: str) -> None:
    """Have the user say yes. again: the command that needs no answer. Raises UsageError where nobody can be asked."""
    if yes:
        return
    if os.environ.get("MOAT_NO_PROMPT", "") not in ("", "0") or not sys.stdin.isatty():
        raise UsageError("there is nobody to ask; nothing was removed", hint=f"run: {again}")
    if not click.confirm(question, err=True):
        raise click.Abort


def shown_size(size: int) -> str:
    """Return bytes for people, in powers of 1,024."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _remove(doomed: Sequence[Remains]) -> None:
    failed = 0
    for each in doomed:
        try:
            remove(each)
        except OSError as failure:
            failed += 1
            say(f"moat: {each.what} stays: {failure.strerror or failure}")
    if failed:
        raise MoatError(f"{failed} of {len(doomed)} could not be removed", hint="see their owner, and try again")
    say(f"moat: removed {len(doomed)}")
