"""From a command line to what a run is asked to be: moat.yaml is read, joined, agreed to, and its secrets are fetched.

options ─┐
moat.yaml ├─ merged ─▶ wishes ─▶ the user's yes ─▶ secrets ─▶ RunSpec
settings ─┘
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from moat.api.container import Mount
from moat.api.errors import UsageError
from moat.api.light import dataclass
from moat.api.runs import RunSpec
from moat.api.runtimes import Runtime
from moat.config.checkout import Checkout, take
from moat.config.settings import Settings
from moat.paths import Home
from moat.runs.collect import found_at
from moat.runs.merge import FILE, Options, merged, secret_of

if TYPE_CHECKING:  # and below, where there is a moat.yaml: most runs have none
    from moat.config.project import Project
    from moat.config.sections import AgentSection
    from moat.runs.approvals import Question
    from moat.runs.secrets import Reference, Sources


@dataclass(frozen=True, slots=True)
class Asked:
    """What the run is asked to be. question: what of it needs a yes.

    references: secrets that are not fetched yet, from sources where they are not moat's own to fetch.
    agents: what moat.yaml says of each.
    """

    spec: RunSpec
    question: Question | None = None
    references: tuple[Reference, ...] = field(default=(), repr=False)
    agents: Mapping[str, AgentSection] = field(default_factory=dict)
    sources: Sources | None = field(default=None, repr=False, compare=False)

    def warnings(self, home: Home) -> list[str]:
        """Return what would be asked first, for those who only want to see the plan."""
        if self.question is None or not self.question.wishes:
            return []
        from moat.runs.approvals import is_approved

        if is_approved(home, self.question):
            return []
        return [f"not granted yet: {self.question.checkout.path} wants to {wish}" for wish in self.question.wishes]


def ask(
    options: Options,
    settings: Settings,
    runtimes: Iterable[Runtime],
    env: Mapping[str, str],
    *,
    ignores_file: bool,
    sources: Sources | None = None,
) -> Asked:
    """Return what is asked for by all who have a say. Nothing has been agreed to and no secret has been fetched.

    sources: what plugins fetch; None for nothing.
    Raises UsageError for a moat.yaml that makes no sense, and when there is no command anywhere.
    """
    checkout = None if ignores_file else take(options.workspace, FILE)
    project = _project(checkout) if checkout is not None else None
    spec = merged(options, project, settings, Path.home())
    if not spec.command and not spec.agent:
        hint = f"run: moat run [PATH] -- COMMAND, or set command or agent in {options.workspace / FILE}"
        raise UsageError("there is no command to run", hint=hint)
    if checkout is None or project is None:
        return Asked(spec)
    from moat.plugins.manager import Plugins
    from moat.runs.approvals import Question
    from moat.runs.secrets import referred
    from moat.runs.wishes import Circumstances, wishes

    workspace = found_at(options.workspace).resolved
    spec = replace(spec, mounts=tuple(_real(spec, mount) for mount in spec.mounts))
    sources = Plugins(()) if sources is None else sources
    references = tuple(
        referred(name, text, workspace=workspace, user_home=Path.home(), env=env, sources=sources)
        for name in spec.env
        if (text := secret_of(spec, name))
    )
    unsealed = [runtime.name for runtime in runtimes if not runtime.sealed]
    around = Circumstances(options, settings, workspace, unsealed)
    question = Question(checkout, wishes(project, spec, references, around))
    return Asked(spec, question, references, project.agents, sources)


def agreed(asked: Asked, home: Home, env: Mapping[str, str], *, is_given: bool) -> RunSpec:
    """Return the run as it is asked to be, once the user agrees, with its secrets. is_given: --yes was said.

    Raises UsageError when the user does not agree, or a secret cannot be had.
    """
    if asked.question is None:
        return asked.spec
    from moat.cli.consent import settle

    settle(asked.question, home, is_given=is_given, env=env)
    if not asked.references or asked.sources is None:
        return asked.spec
    import asyncio

    workspace = found_at(asked.spec.workspace).resolved
    return asyncio.run(_with_secrets(asked, asked.sources, workspace, home, env))


async def _with_secrets(asked: Asked, sources: Sources, workspace: Path, home: Home, env: Mapping[str, str]) -> RunSpec:
    from moat.runs.secrets import fetch

    values = {
        each.name: await fetch(each, workspace=workspace, home=home, env=env, sources=sources)
        for each in asked.references
    }
    return replace(asked.spec, env={**asked.spec.env, **values})


def _project(checkout: Checkout) -> Project:
    from moat.config.project import load_project

    return load_project(checkout).project


def _real(spec: RunSpec, mount: Mount) -> Mount:
    """Return a mount of moat.yaml's with its real path, which is what the user is asked about and what is mounted."""
    is_ours = spec.origins.get(f"mount.{mount.target}") == FILE
    return replace(mount, source=found_at(mount.source).resolved) if is_ours else mount
