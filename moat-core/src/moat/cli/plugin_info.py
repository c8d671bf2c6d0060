"""What `moat plugins info NAME` tells: the plugins that NAME means, and all that each of them offers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moat.api.agents import AgentProvider
from moat.api.credentials import CredentialProvider
from moat.api.errors import PluginError, UsageError
from moat.cli import output
from moat.plugins.discovery import Candidate, normalized
from moat.plugins.manager import Offer, Plugins, T

OURS = "moat-provider-"
_WIDTH = 21


@dataclass(frozen=True, slots=True)
class Option:
    """An option of `moat grant NAME` that the provider added."""

    name: str
    help: str
    required: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant on offer. hosts: where it can be spent, as its provider declares; empty where it says nothing."""

    name: str
    summary: str
    hosts: tuple[str, ...]
    options: tuple[Option, ...]
    renewed: bool


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent on offer. grants: names of those that it can run on, the best first."""

    name: str
    summary: str
    program: str
    grants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A runtime or a source of secrets on offer."""

    name: str
    summary: str


@dataclass(frozen=True, slots=True)
class Info:
    """One plugin and all that it offers. problem: why it is disabled, empty when it works."""

    plugin: str
    distribution: str
    version: str
    problem: str
    hooks: tuple[str, ...]
    grants: tuple[Grant, ...]
    agents: tuple[Agent, ...]
    runtimes: tuple[Named, ...]
    secrets: tuple[Named, ...]

    @property
    def names(self) -> set[str]:
        """All that it may be called by."""
        short = self.distribution.removeprefix(OURS)
        kinds: tuple[Sequence[Grant | Agent | Named], ...] = (self.grants, self.agents, self.runtimes, self.secrets)
        return {self.plugin, self.distribution, short, *(each.name for kind in kinds for each in kind)}


def infos_of(loaded: Plugins) -> tuple[list[Info], list[str]]:
    """Return what every plugin offers, and the conflicts; what two claim by one name is left out of both."""
    conflicts: list[str] = []
    grants = _offered(loaded.credential_offers, conflicts)
    agents = _offered(loaded.agent_offers, conflicts)
    runtimes = _offered(loaded.runtime_offers, conflicts)
    secrets = _offered(loaded.secret_source_offers, conflicts)
    problems = {problem.plugin.title: problem.text for problem in loaded.problems}  # asking may have found some
    return [
        Info(
            plugin.name,
            plugin.distribution,
            plugin.version,
            problems.get(plugin.title, ""),
            loaded.hooks_of(plugin),
            tuple(map(_grant, _of(plugin, grants))),
            tuple(map(_agent, _of(plugin, agents))),
            tuple(Named(each.name, each.summary) for each in _of(plugin, runtimes)),
            tuple(Named(each.name, each.summary) for each in _of(plugin, secrets)),
        )
        for plugin in loaded.candidates
    ], conflicts


def meant(name: str, infos: Sequence[Info]) -> list[Info]:
    """Return the plugins that name means, in whatever case and with - for _.

    Raises UsageError, suggesting the nearest.
    """
    if found := [info for info in infos if normalized(name) in map(normalized, info.names)]:
        return found
    known = sorted({each for info in infos for each in info.names})
    near = difflib.get_close_matches(normalized(name), known, n=1)
    raise UsageError(
        f"no plugin is called {name!r}, and none offers a grant, agent, runtime or source of secrets of that name",
        hint=f"run: moat plugins info {near[0]}" if near else "run: moat plugins list",
    )


def show_info(info: Info) -> None:
    """Print all of it, a fact a line."""
    _fact("plugin", info.plugin)
    _fact("distribution", f"{info.distribution} {info.version}".rstrip())
    _fact("state", f"disabled: {info.problem}" if info.problem else "ok")
    _fact("hooks", ", ".join(info.hooks) or "none")
    for grant in info.grants:
        _show_grant(grant)
    for agent in info.agents:
        _fact("agent", f"{agent.name}: {agent.summary}")
        _fact("  runs on", f"the grant {' or '.join(agent.grants)}")
        _fact("  start it", f"moat {agent.name}")
    for runtime in info.runtimes:
        _fact("runtime", f"{runtime.name}: {runtime.summary}")
    for source in info.secrets:
        _fact("secrets", f"{source.name}://: {source.summary}")


def _show_grant(grant: Grant) -> None:
    _fact("grant", f"{grant.name}: {grant.summary}")
    _fact("  spent on", ", ".join(grant.hosts) or "not declared")
    if grant.renewed:
        _fact("  renewed", "by moat, while runs spend it")
    needed = "".join(f" --{option.name} …" for option in grant.options if option.required)
    _fact("  obtain it", f"moat grant {grant.name}{needed}")
    for option in grant.options:
        _fact(f"  --{option.name}", option.help + (" (required)" if option.required else ""))


def _fact(key: str, value: str) -> None:
    output.show(f"{key + ':':<{_WIDTH}} {value}")


def _offered(ask: Callable[[], list[Offer[T]]], conflicts: list[str]) -> list[Offer[T]]:
    try:
        return ask()
    except PluginError as failure:
        conflicts.append(failure.problem)
        return []


def _of(plugin: Candidate, offers: Iterable[Offer[T]]) -> list[T]:
    return [offer.value for offer in offers if offer.plugin.title == plugin.title]


def _grant(provider: CredentialProvider) -> Grant:
    options = tuple(Option(each.name, each.help, each.required) for each in provider.grant_options)
    return Grant(provider.name, provider.summary, tuple(provider.hosts), options, provider.refresh_every_s > 0)


def _agent(provider: AgentProvider) -> Agent:
    return Agent(provider.name, provider.summary, provider.program, tuple(provider.grants))
