"""`moat uninstall`: leave nothing of moat's on this machine but its Python packages, which pip removes."""

from __future__ import annotations

import os

import click

from moat.api.errors import MoatError, StoreError
from moat.cli.clean import confirm, shown_size
from moat.cli.output import say, show, warn
from moat.cli.runs import live_ids
from moat.daemon import lifecycle
from moat.daemon.audit_key import AuditKeys
from moat.paths import Home, find_home, remove_tree
from moat.runs.remains import size_of
from moat.store.key import KeyHolder


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
    live = len(live_ids(home))
    show(f"{home.root}  {shown_size(size_of(home.root))}: credentials, keys, runs, settings, the audit")
    if home.volumes.is_dir():
        show(f"{home.volumes}  {shown_size(size_of(home.volumes))}: volumes")
    if home.sessions.is_dir():
        show(f"{home.sessions}  {shown_size(size_of(home.sessions))}: conversations with agents")
    if live:
        show(f"live runs, which are stopped: {live}")
    confirm("remove all of it for good?", yes=yes, again="moat uninstall --yes")
    lifecycle.stop(home)
    _forget_key(home)
    try:
        for folder in (home.copies, home.sessions, home.volumes, home.root):
            remove_tree(folder)
    except OSError as failure:
        raise MoatError(f"{home.root} could not be removed: {failure}", hint=f"run: rm -rf {home.root}") from failure
    say("moat: removed. The packages go with: pip uninstall moat-core, and the moat-provider-* that you installed")


def _forget_key(home: Home) -> None:
    """Remove the keys from the keyring. A keyring that does not answer must not keep the credentials here."""
    for keys in (KeyHolder(home, os.environ, warn), AuditKeys(home, os.environ)):
        try:
            keys.forget()
        except StoreError as failure:
            warn(f"{failure.problem}; {failure.hint}")
