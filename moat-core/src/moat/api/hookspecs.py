"""Every hook a plugin can implement, on one page. Mark an implementation with `@hookimpl`.

The first five say what a plugin *is*; the rest watch or narrow. Hooks are synchronous and cheap: whatever waits is an
async method of a provider. Results combine by rules that no order can change (docs/plugins/hooks.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import click

    from moat.api.agents import AgentProvider
    from moat.api.credentials import CredentialProvider
    from moat.api.endpoints import EndpointProvider
    from moat.api.runs import Contribution, ExchangeRecord, RunInfo, RunSpec
    from moat.api.runtimes import Runtime
    from moat.api.secrets import SecretSource

hookspec = pluggy.HookspecMarker("moat")
hookimpl = pluggy.HookimplMarker("moat")


@hookspec
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Return this plugin's credential providers. Names are unique across all plugins."""
    raise NotImplementedError


@hookspec
def moat_agent_providers() -> Iterable[AgentProvider]:
    """Return this plugin's agents; each becomes a command, `moat NAME`. Names are unique, also among commands."""
    raise NotImplementedError


@hookspec
def moat_endpoint_providers() -> Iterable[EndpointProvider]:
    """Return this plugin's endpoint providers, each named like the grant that it serves. Names are unique."""
    raise NotImplementedError


@hookspec
def moat_runtimes() -> Iterable[Runtime]:
    """Return this plugin's runtimes; the built-in ones are registered the same way."""
    raise NotImplementedError


@hookspec
def moat_secret_sources() -> Iterable[SecretSource]:
    """Return where secrets of moat.yaml can come from, one for each scheme. Names are unique across all plugins."""
    raise NotImplementedError


@hookspec
def moat_register_commands(cli: click.Group) -> None:
    """Add commands to `moat`. Called when the CLI lists its commands or meets one it does not know."""


@hookspec
def moat_configure_run(spec: RunSpec) -> Contribution | None:
    """Add rules and container setup to a run, in the daemon, while it is planned. An exception refuses the run."""


@hookspec
def moat_run_started(run: RunInfo) -> None:
    """Observe that a run is sealed and about to start its command, in the daemon. Exceptions are logged and ignored."""


@hookspec
def moat_run_stopped(run: RunInfo, exit_code: int) -> Mapping[str, str] | None:
    """Observe a run's end, in the daemon; the result is kept with the run. Exceptions are logged and ignored."""


@hookspec
def moat_exchange_done(run_id: str, exchange: ExchangeRecord) -> None:
    """Observe a finished exchange, in the daemon. Exceptions are logged and ignored."""
