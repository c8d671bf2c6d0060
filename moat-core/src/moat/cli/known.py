"""What a shell can complete besides commands and options: names of runs, grants, profiles, runtimes, services, agents.

Read from files and plugins, at each TAB: writes nothing, asks no daemon, needs no key. `moat run` loads this at its
start, so whatever takes time to load is loaded by the function that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of runs, newest first, each once."""
    return _beginning(incomplete, _runs())


def complete_live_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of runs that live, as far as their files say."""
    from moat.trace.store import LIVE_STATES

    return _beginning(incomplete, _runs(LIVE_STATES))


def complete_folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete folders, as it does."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def complete_grants(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of stored credentials, of the profile that stands before them on the line."""
    from moat.paths import find_home
    from moat.store.credentials import CredentialStore

    profile = next((str(found) for each in _lineage(ctx) if (found := each.params.get("profile"))), "")
    return _beginning(incomplete, (info.name for info in CredentialStore(find_home(), profile=profile).describe_all()))


def complete_profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of profiles that have credentials."""
    from moat.paths import find_home

    folder = find_home().root / "profiles"
    return _beginning(incomplete, sorted(each.name for each in folder.iterdir()) if folder.is_dir() else ())


def complete_runtimes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of runtimes, whether this machine has them or not."""
    from moat.plugins.manager import Plugins

    return _beginning(incomplete, (each.name for each in Plugins.load().runtimes()))


def complete_services(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the kinds of services that are known."""
    from moat.config.services import KINDS

    return _beginning(incomplete, KINDS)


def complete_agents(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of agents."""
    from moat.plugins.manager import Plugins

    return _beginning(incomplete, (offer.value.name for offer in Plugins.load().agent_offers()))


def _runs(states: Iterable[str] = ()) -> Iterable[str]:
    from moat.paths import find_home
    from moat.trace.store import RunStore

    wanted = tuple(states)
    return [info.name for info in RunStore(find_home()).list() if not wanted or info.state in wanted]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _lineage(ctx: click.Context | None) -> Iterable[click.Context]:
    while ctx is not None:
        yield ctx
        ctx = ctx.parent
