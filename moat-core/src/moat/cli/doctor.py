"""`moat doctor`: can this machine hold sealed runs, and if not, what to type. Exit 1 when no sealed run can be made."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from moat.api.errors import MoatError
from moat.cli.output import show, show_json, styled
from moat.config.settings import Settings, load_settings
from moat.paths import Home, find_home
from moat.plugins.manager import Plugins
from moat.runs.checks import Check
from moat.runs.checkup import can_run, check_up

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}
_NAME_CHARS = 20


@click.command("doctor")
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
def doctor(in_json: bool) -> int:
    """Check whether this machine can hold sealed runs, by making one."""
    home = find_home()
    settings, checks = _settings(home)
    for check in checks if not in_json else ():
        _show(check)
    for check in check_up(home, Plugins.load(), settings):
        checks.append(check)
        if not in_json:
            _show(check)
    is_fine = can_run(checks)
    if in_json:
        show_json({"can_run": is_fine, "checks": [asdict(check) for check in checks]})
    else:
        show("\nsealed runs work here." if is_fine else "\nno sealed run can be made here; see the lines with ✗ and !.")
    return 0 if is_fine else 1


def _settings(home: Home) -> tuple[Settings, list[Check]]:
    """Return the settings; broken ones are a finding, and the defaults then do for the rest."""
    try:
        return load_settings(home), []
    except MoatError as failure:
        return Settings(), [Check("settings", "failed", failure.problem, failure.hint)]


def _show(check: Check) -> None:
    mark, style = _MARKS[check.state]
    show(f"{styled(mark, style, sys.stdout)} {check.name:<{_NAME_CHARS}} {check.detail}")
    if check.hint and check.state != "ok":
        show(f"  {'':<{_NAME_CHARS}} {check.hint}")
