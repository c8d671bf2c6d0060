"""`moat demo`: tells the demo as a short story. Exit 1 if any of it is not so."""

from __future__ import annotations

import asyncio

import click

from moat.api.errors import RuntimeUnavailable
from moat.cli.output import show, show_table, styled
from moat.cli.trace_table import TITLES, as_rows
from moat.runtimes.bubblewrap import Bubblewrap


@click.command("demo")
def demo() -> int:
    """Show in seconds, on this machine alone, what moat does: no account, no container engine, no network."""
    from moat.demo.claims import judge
    from moat.demo.story import play, stage

    check_bubblewrap()
    show("An agent calls an API with a key that it never has. Nothing leaves this machine.\n")
    with stage() as home:
        seen = play(home)
    claims = judge(seen)
    for claim in claims:
        show(f"  {_mark(not claim.failure)} {claim.text}")
        if claim.failure:
            show(f"      {claim.failure}")
    if seen.exchanges:
        show()
        show_table(TITLES, as_rows(seen.exchanges))
    failed = sum(1 for claim in claims if claim.failure)
    show()
    show(
        f"{failed} of {len(claims)} claims do not hold here; see what this machine lacks: moat doctor"
        if failed
        else "The key did its work and never went in."
    )
    return 1 if failed else 0


def check_bubblewrap() -> None:
    """Raise RuntimeUnavailable, with the one line to type, where the demo's runtime cannot work."""
    readiness = asyncio.run(Bubblewrap().readiness(""))
    if not readiness.is_ready:
        raise RuntimeUnavailable(f"the demo needs bubblewrap: {readiness.detail}", hint=readiness.hint)


def _mark(is_so: bool) -> str:
    import sys

    return styled("✓", "green", sys.stdout) if is_so else styled("✗", "red", sys.stdout)
