"""`moat trace`: what a run asked the network for, and what became of it. Reads only; starts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from moat.api.errors import RunNotFound
from moat.api.runs import ExchangeRecord, RunInfo
from moat.cli.output import show, show_json, show_table
from moat.cli.runs import live_ids
from moat.paths import Home, find_home
from moat.trace.network import read_exchanges
from moat.trace.store import RunStore

TITLES = ("AT", "OUTCOME", "STATUS", "METHOD", "URL", "GRANTS", "MS", "WHY")


@click.command("trace")
@click.argument("run", default="")
@click.option("--network", is_flag=True, help="The run's requests (the only trace so far, and the default).")
@click.option("--json", "in_json", is_flag=True, help="One JSON array, with every field.")
def trace(run: str, network: bool, in_json: bool) -> None:
    """Show the requests of RUN: an id, the beginning of one, or a name. Without RUN: the newest."""
    del network  # there is nothing else to choose yet
    home = find_home()
    info = chosen_run(home, run)
    exchanges = list(read_exchanges(RunStore(home).network(info.run_id)))
    if in_json:
        show_json([asdict(exchange) for exchange in exchanges])
    else:
        _show(info, exchanges)


def chosen_run(home: Home, reference: str) -> RunInfo:
    """Return the run that reference means, the newest one for none. Raises RunNotFound."""
    store, live = RunStore(home), live_ids(home)
    if reference:
        return store.find(reference, live)
    known = store.list(live)
    if not known:
        raise RunNotFound("there are no runs yet", hint="run: moat run -- COMMAND")
    return known[0]


def as_rows(exchanges: Sequence[ExchangeRecord]) -> list[tuple[str, ...]]:
    """Return exchanges as rows under TITLES, oldest first."""
    return [
        (
            each.at[11:19],
            each.outcome,
            str(each.status) if each.status else "-",
            each.method,
            _url(each),
            ", ".join(each.grants) or "-",
            f"{each.duration_ms:.0f}",
            "; ".join(part for part in (each.reason, each.allow_line) if part),
        )
        for each in exchanges
    ]


def _show(info: RunInfo, exchanges: Sequence[ExchangeRecord]) -> None:
    show(f"{info.name} ({info.run_id}, {info.state})")
    if exchanges:
        show_table(TITLES, as_rows(exchanges))
    else:
        show("no requests")


def _url(exchange: ExchangeRecord) -> str:
    host = f"[{exchange.host}]" if ":" in exchange.host else exchange.host
    usual = {"https": 443, "http": 80}.get(exchange.scheme)
    port = "" if exchange.port == usual else f":{exchange.port}"
    return f"{exchange.scheme}://{host}{port}{exchange.path}"
