"""Agents: programs that work in a run by themselves. What core needs to know to make `moat <name>` of one.

AgentRequest ─┐
              ├─▶ AgentProvider.command, .setup ─▶ argv, variables, files ─▶ a run like any other
Surroundings ─┘

A provider is asked in the CLI, before the run exists. It returns values; it never sees a secret, so it can show none.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from moat.api.runs import NetworkPolicy, NetworkRule


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """What the user wants of an agent.

    prompt: to be answered at once; "" to be talked to in a terminal. session: id of the one to go on with. acts_freely:
    it asks for no permission, since the run is sealed. arguments: for the program, as typed after `--`.
    """

    prompt: str = ""
    session: str = ""
    model: str = ""
    acts_freely: bool = True
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the run will be, as far as an agent's files must say.

    home, workspace: paths inside. program: the words that start it there. grants: all that the run spends; grant: the
    one of them that the agent runs on, with what is known about its credential. mcp: name → URL inside. host_files:
    what stands in `AgentProvider.host_files`, by those names; absent ones are left out. They are the user's: take from
    them only what can be no secret.

    beside: what else a run may see or reach, as `Beside` says.
    """

    home: str
    workspace: str
    program: tuple[str, ...]
    now: datetime
    grant: str = ""
    grants: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    policy: NetworkPolicy = field(default_factory=NetworkPolicy)
    mcp: Mapping[str, str] = field(default_factory=dict)
    works_on_a_copy: bool = False
    host_files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    beside: Beside = field(default_factory=lambda: Beside())


@dataclass(frozen=True, slots=True)
class Beside:
    """What a run has beside its workspace and the proxy.

    branch: of the worktree that the workspace is, "" for none. shared: folders and files of the user's that it may
    write, shown: those that it may only read, lasting: its volumes; paths inside. hides: whether parts of the workspace
    are not shown. services: name → port at 127.0.0.1. host_ports: host:port that lead to this machine. ports: name →
    port inside that the user reaches.
    """

    branch: str = ""
    shared: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    lasting: tuple[str, ...] = ()
    hides: bool = False
    services: Mapping[str, int] = field(default_factory=dict)
    host_ports: tuple[str, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentSetup:
    """What an agent finds inside. files: absolute path → contents, the run's own: it may change them. No secret."""

    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that runs left in `AgentProvider.kept`. path: relative to home inside. head: its first 256 KiB.

    A run wrote it: nothing in it can be trusted.
    """

    path: str
    modified_at: datetime
    head: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation that can be gone on with. title: what it began with.

    began_at: as it says itself, with its zone; None where it does not. It tells which run began it. The function of
    that name reads it from transcripts of JSON lines.
    """

    id: str
    title: str
    modified_at: datetime
    began_at: datetime | None = None


class AgentProvider(ABC):
    """A program that works by itself, and how it is run.

    program: its name on the PATH. grants: names of those that it can run on, the best first. dependencies, post_build:
    what makes an image of it, as in moat.yaml; size_mb: what is about to be downloaded then. hosts: what a strict
    policy lets out for it, besides the hosts of its grant. kept: folders below home that last from run to run of one
    workspace. host_files: paths below the user's own home that `setup` may see.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    program: ClassVar[str]
    grants: ClassVar[tuple[str, ...]]
    dependencies: ClassVar[tuple[str, ...]]
    post_build: ClassVar[str] = ""
    size_mb: ClassVar[int] = 0
    hosts: ClassVar[tuple[str, ...]] = ()
    kept: ClassVar[tuple[str, ...]] = ()
    host_files: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def command(self, request: AgentRequest, around: Surroundings) -> Sequence[str]:
        """Return the command, which holds the words of `around.program`. Pure."""

    @abstractmethod
    def setup(self, request: AgentRequest, around: Surroundings) -> AgentSetup:
        """Return variables and files for inside, with placeholders only. Pure."""

    def sessions(self, files: Iterable[KeptFile]) -> Sequence[Session]:
        """Return the sessions that files tell of, in any order; ids that can be resumed. Default: none. Pure."""
        del files
        return ()


def began_at(head: bytes, field: str = "timestamp") -> datetime | None:
    """Return the time in a transcript's first line that has one, in UTC; None without.

    head: of a `KeptFile`, one JSON object a line. field: of the object, in ISO 8601. What is neither is passed over,
    since a run wrote it.
    """
    for line in head.splitlines():
        try:
            return datetime.fromisoformat(json.loads(line)[field]).astimezone(UTC)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
    return None


def instructions(around: Surroundings) -> str:
    """Return what an agent should know about its limits, in Markdown: what is enforced and nothing else."""
    others = [f"`{name}`" for name in around.grants if name != around.grant]
    spent = [f"- Requests to the services of {', '.join(others)} get the user's credential on their way."]
    lines = [
        "# Where you are",
        "",
        "The user started you in a sandbox made by moat. Work within it; do not try to leave it.",
        "",
        *_files(around),
        f"- There is no way out but a proxy, for HTTP, HTTPS and WebSocket. {_reach(around.policy)}",
        *(f"  - `{_text(rule)}`" for rule in around.policy.rules),
        *_ports(around.beside),
        "- Nothing else leaves: no ssh, no raw TCP or UDP, no ping. Use https URLs with git.",
        "- No real credential is here. What looks like a token is a placeholder: leave it as it is.",
        *(spent if others else []),
        "- An answer with the header `X-Moat-Blocked` means that a request was kept in on purpose. Tell the user.",
        *(f"- MCP server `{name}`: {url}" for name, url in around.mcp.items()),
    ]
    return "\n".join(lines) + "\n"


def _files(around: Surroundings) -> Iterator[str]:
    place, beside = around.workspace, around.beside
    if around.works_on_a_copy:
        yield f"- `{place}` is a copy of the user's folder, who decides later what is taken over."
    elif beside.branch:
        yield f"- `{place}` is a git worktree of the user's, on the branch `{beside.branch}`: commit what is to stay."
    else:
        yield f"- `{place}` is the user's own folder: what you change there is changed for good."
    if beside.hides:
        yield f"- Parts of `{place}` are not shown to you: they are empty here, and not in truth."
    if beside.shared:
        yield f"- The user's own as well, and changed for good: {_listed(beside.shared)}."
    if beside.shown:
        yield f"- The user's own, to be read only: {_listed(beside.shown)}."
    if beside.lasting:
        yield f"- Kept for the next run here: {_listed(beside.lasting)}."
    yield "- Everything else on this disk belongs to the sandbox, and most of it is lost at its end."


def _ports(beside: Beside) -> Iterator[str]:
    if beside.services:
        named = (f"{name} at 127.0.0.1:{port}" for name, port in beside.services.items())
        yield f"- Services of this run's own, gone with it: {_listed(named)}."
    if beside.host_ports:
        yield f"- On the user's machine, which nothing else leads to: {_listed(beside.host_ports)}."
    if beside.ports:
        named = (f"{port} ({name})" for name, port in beside.ports.items())
        yield f"- The user can open what you serve at these ports of 127.0.0.1: {_listed(named)}."


def _reach(policy: NetworkPolicy) -> str:
    rules = " Before that come these rules, and the first that fits decides:" if policy.rules else ""
    if policy.mode == "permissive":
        return f"It reaches every public host, and no private address.{rules}"
    hosts = _listed(policy.allow) or "no other"
    return f"It reaches the services of the user's credentials, and these hosts: {hosts}.{rules}"


def _text(rule: NetworkRule) -> str:
    return f"{rule.verdict} {','.join(rule.methods) or '*'} {rule.host}{rule.path}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
