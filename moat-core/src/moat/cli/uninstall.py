"""`moat uninstall`: leave nothing of moat's on this machine but its Python packages, which pip removes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

import click

from moat.api.errors import MoatError, SandboxFailed, StoreError
from moat.api.runs import RunInfo
from moat.cli.clean import confirm, shown_size
from moat.cli.output import say, show, warn
from moat.cli.reach import END_S
from moat.cli.runs import live_ids
from moat.daemon import lifecycle
from moat.daemon.audit_key import AuditKeys
from moat.paths import Home, find_home, remove_tree
from moat.runs.interrupt import GRACE_S
from moat.runs.reach import awaited, connected, send_signal
from moat.runs.remains import size_of
from moat.store.key import KeyHolder
from moat.trace.store import LIVE_STATES, RunStore


@click.command("uninstall")
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(yes: bool) -> None:
    """Stop the daemon and remove all credentials, keys, runs, settings and the audit. Live runs are stopped.

    What the audit holds of a run is kept with: moat audit export RUN -o FILE.
    """
    home = find_home()
    if not home.root.is_dir():
        show(f"there is nothing of moat's: {home.root} does not exist")
        return
    live = [info for info in RunStore(home).list(live_ids(home)) if info.state in LIVE_STATES]
    show(f"{home.root}  {shown_size(size_of(home.root))}: credentials, keys, runs, settings, the audit")
    for folder, what in ((home.copies, "copies of workspaces that runs worked on"), (home.volumes, "volumes"),
                         (home.sessions, "conversations with agents")):  # fmt: skip
        if folder.is_dir():
            show(f"{folder}  {shown_size(size_of(folder))}: {what}")
    if live:
        show(f"live runs, which are stopped: {len(live)}")
    confirm("remove all of it for good?", yes=yes, again="moat uninstall --yes")
    _stop(home, live)
    lifecycle.stop(home)
    _forget_key(home)
    try:
        for folder in (home.copies, home.sessions, home.volumes, home.root):
            remove_tree(folder)
    except OSError as failure:
        raise MoatError(f"{home.root} could not be removed: {failure}", hint=f"run: rm -rf {home.root}") from failure
    say("moat: removed. The packages go with: pip uninstall moat-core, and the moat-provider-* that you installed")


def _stop(home: Home, live: Sequence[RunInfo]) -> None:
    """End runs as `moat stop` does, and wait for who holds them: they write how it ended, and clean up after it.

    One that does not end in time ends with the daemon.
    """
    for info in live:
        with contextlib.suppress(SandboxFailed):  # who held it was killed: the daemon ends it
            asyncio.run(send_signal(connected(home, info), signal.SIGTERM, GRACE_S))
    for info in live:
        asyncio.run(awaited(home, info, GRACE_S + END_S))


def _forget_key(home: Home) -> None:
    """Remove the keys from the keyring. A keyring that does not answer must not keep the credentials here."""
    for keys in (KeyHolder(home, os.environ, warn), AuditKeys(home, os.environ)):
        try:
            keys.forget()
        except StoreError as failure:
            warn(f"{failure.problem}; {failure.hint}")
