"""`moat <agent>`: a command for each agent that a plugin brings. It is `moat run` with what the agent needs.

flags, moat.yaml ─▶ grant (chosen, or offered) ─▶ program (an image's, or this machine's) ─▶ session ─▶ a run
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from moat.api.agents import AgentProvider, AgentRequest, Surroundings
from moat.api.container import Mount
from moat.api.errors import MoatError, RunNotFound, RuntimeUnavailable, UsageError
from moat.api.runs import RunSpec
from moat.api.runtimes import Runtime
from moat.cli.asking import Asked, agreed, ask
from moat.cli.dashes import DashedCommand, after_dashes
from moat.cli.known import complete_folders, complete_runs
from moat.cli.output import say
from moat.cli.run import run as run_command
from moat.cli.run_steps import carry_out, check_json, options_of, rehearse
from moat.config.mounts import WORKSPACE
from moat.config.settings import load_settings
from moat.paths import Home, find_home
from moat.plugins.manager import Plugins, how_to_have
from moat.runs.agent import beside, relayed, with_agent, with_image
from moat.runs.attach import fill_closed
from moat.runs.collect import found_at
from moat.runs.host_program import find_program
from moat.runs.plan import INSIDE_HOME
from moat.runs.prepare import candidates
from moat.runs.sessions import Sessions
from moat.runtimes.detect import choose
from moat.store.credentials import CredentialStore
from moat.trace.store import RunStore

HOST_FILE_BYTES = 1024 * 1024
LAST = "\0last"  # the session that --continue means: nobody can type this
_NOT_OURS = ("words", "tty")  # of `moat run`


class AgentCommand(DashedCommand):
    """A command line whose end, after `--`, is for the agent's own program."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the usage line."""
        return ["[WORKSPACE]", "[OPTIONS]", "[-- ARGUMENTS...]"]


def command_of(agent: AgentProvider) -> click.Command:
    """Return `moat <agent>`: what to do, and the options of `moat run`."""

    def callback(**given: Any) -> int:
        return start_agent(agent, click.get_current_context(), **given)

    own: list[click.Parameter] = [
        click.Argument(["words"], nargs=-1, metavar="[WORKSPACE]", shell_complete=complete_folders),
        click.Option(["-p", "--prompt"], default="", metavar="TEXT", help="Do this, print the answer, and end."),
        click.Option(["-c", "--continue", "continues"], is_flag=True, help="Go on with the last session here."),
        click.Option(
            ["--resume"],
            default="",
            metavar="ID|RUN",
            shell_complete=complete_runs,
            help="Go on with this session: moat sessions.",
        ),
        click.Option(["--model"], default="", metavar="M", help="The model to ask."),
        click.Option(["--noyolo"], is_flag=True, help="Have it ask before it acts; it need not, since it is sealed."),
    ]
    shared = [each for each in run_command.params if each.name not in _NOT_OURS]
    summary = f"Run {agent.summary} in a sealed sandbox, without its credential."
    return AgentCommand(agent.name, callback=callback, params=own + shared, help=summary)


def start_agent(
    agent: AgentProvider,
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    prompt: str,
    continues: bool,
    resume: str,
    model: str,
    noyolo: bool,
    branch: str,
    start: str,
    yes: bool,
    ignore_file: bool,
    dry_run: bool,
    in_json: bool,
    detached: bool,
    **asked_for: Any,
) -> int:
    """Run an agent and return its exit code."""
    fill_closed()
    _check_words(agent, words, has_prompt=bool(prompt))
    check_json(in_json=in_json, dry_run=dry_run)
    if resume and continues:
        raise UsageError("--continue and --resume are two different sessions", hint="use one of them")
    session = LAST if continues else resume
    request = AgentRequest(prompt, session, model, not noyolo, after_dashes(ctx) or ())
    _check_request(agent, request, is_alone=detached or dry_run)
    home, plugins = find_home(), Plugins.load()
    runtimes = plugins.runtimes()
    options = options_of(words, (agent.program,), interactive=None if prompt else True, **asked_for)
    if branch or start:
        from moat.cli.wt import in_a_worktree

        options = in_a_worktree(options, home, branch, start, makes=not dry_run)
    asked = ask(options, load_settings(home), runtimes, os.environ, ignores_file=ignore_file, sources=plugins)
    asked = _agreed(agent, request, asked, home, runtimes, ctx, is_given=yes, is_rehearsed=dry_run)
    if dry_run:
        return rehearse(asked, home, runtimes, in_json=in_json)
    estimate = f"about {agent.size_mb} MB are fetched, which takes a minute or two" if agent.size_mb else ""
    return carry_out(asked.spec, home, runtimes, None, detached=detached, estimate=estimate)


def run_agent(
    asked: Asked, home: Home, runtimes: Sequence[Runtime], ctx: click.Context, *, is_given: bool, is_rehearsed: bool
) -> Asked:
    """Return the run of the agent that moat.yaml names, for `moat run` without a command. Raises UsageError."""
    agent = agent_called(asked.spec.agent)
    request = AgentRequest()
    _check_request(agent, request, is_alone=is_rehearsed)
    return _agreed(agent, request, asked, home, runtimes, ctx, is_given=is_given, is_rehearsed=is_rehearsed)


def agent_called(name: str) -> AgentProvider:
    """Return an agent. Raises UsageError, listing those that are installed, when there is none called so."""
    agents = {offer.value.name: offer.value for offer in Plugins.load().agent_offers()}
    if name not in agents:
        problem = f"no agent called {name!r} is installed; there are: {', '.join(agents) or 'none'}"
        raise UsageError(problem, hint=how_to_have(name, agents))
    return agents[name]


def _agreed(
    agent: AgentProvider,
    request: AgentRequest,
    asked: Asked,
    home: Home,
    runtimes: Sequence[Runtime],
    ctx: click.Context,
    *,
    is_given: bool,
    is_rehearsed: bool,
) -> Asked:
    """Return the agent's run, once the user has agreed to what moat.yaml asks for."""
    spec = asked.spec if is_rehearsed else agreed(asked, home, os.environ, is_given=is_given)
    return replace(asked, spec=_ready(agent, _with_section(request, asked, agent.name), spec, home, runtimes, ctx))


def _with_section(request: AgentRequest, asked: Asked, name: str) -> AgentRequest:
    """Return request with what moat.yaml says of the agent, and the command line does not."""
    section = asked.agents.get(name)
    if section is None:
        return request
    return replace(
        request, model=request.model or section.model or "", acts_freely=request.acts_freely and section.yolo
    )


def _ready(
    agent: AgentProvider,
    request: AgentRequest,
    spec: RunSpec,
    home: Home,
    runtimes: Sequence[Runtime],
    ctx: click.Context,
) -> RunSpec:
    """Return the run, with a grant to run on, a program, and the session to go on with."""
    store = CredentialStore(home, profile=spec.profile)
    grant = _grant_of(agent, spec, store, ctx)
    grants = spec.grants if grant in spec.grants else (*spec.grants, grant)
    origins = {f"grant.{grant}": f"agent {agent.name}", **spec.origins}
    spec = replace(spec, grants=grants, origins=origins)
    spec, program, mounts = _placed(agent, spec, runtimes)
    sessions = Sessions(home, agent, found_at(spec.workspace).resolved)
    if request.session:
        request = replace(request, session=_session(sessions, request.session, home))
    around = Surroundings(
        home=INSIDE_HOME,
        workspace=WORKSPACE,
        program=program,
        now=datetime.now(UTC),
        grant=grant,
        grants=grants,
        metadata=store.describe(grant).metadata,
        policy=spec.policy,
        mcp=relayed(spec.mcp),
        works_on_a_copy=spec.on_a_copy,
        host_files=_host_files(agent),
        beside=beside(spec),
    )
    return with_agent(spec, agent, request, around, [*mounts, *sessions.mounts(INSIDE_HOME)])


def _check_words(agent: AgentProvider, words: tuple[str, ...], *, has_prompt: bool) -> None:
    """Raise UsageError for words that are no workspace: a prompt without -p, most of the time."""
    if len(words) > 1 or (words and not Path(words[0]).is_dir()):
        typed = shlex.quote(" ".join(words))
        hint = "name one that is there, once, or go to it" if has_prompt else f"run: moat {agent.name} -p {typed}"
        raise UsageError(f"{words[0]!r} is no folder to work in", hint=hint)


def _check_request(agent: AgentProvider, request: AgentRequest, *, is_alone: bool) -> None:
    """Raise UsageError for what cannot be meant. is_alone: nobody is to talk to it now."""
    if not request.prompt and not is_alone and not sys.stdin.isatty():
        raise UsageError(f"there is no terminal to talk to {agent.name} in", hint=f"run: moat {agent.name} -p PROMPT")


def _grant_of(agent: AgentProvider, spec: RunSpec, store: CredentialStore, ctx: click.Context) -> str:
    """Return the grant that the agent runs on: one that was asked for, else the best that is stored, else a new one."""
    if asked := [name for name in spec.grants if name in agent.grants]:
        return asked[0]
    stored = {info.name for info in store.describe_all()}
    if known := [name for name in agent.grants if name in stored]:
        return known[0]
    return _granted_now(agent, spec, ctx)


def _granted_now(agent: AgentProvider, spec: RunSpec, ctx: click.Context) -> str:
    """Offer to obtain a credential now. Raises MoatError, with what to type, where nobody can be asked."""
    from moat.cli.grant import grant_now

    profile = f" --profile {spec.profile}" if spec.profile else ""
    commands = [f"moat grant{profile} {name}" for name in agent.grants]
    problem = f"{agent.name} has no credential to run on"
    if os.environ.get("MOAT_NO_PROMPT", "") not in ("", "0") or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise MoatError(problem, hint=f"run: {', or: '.join(commands)}")
    providers = [Plugins.load().credential_provider(name) for name in agent.grants]
    say(f"moat: {problem} yet. It stays outside of the run; which one is it to be?")
    for number, provider in enumerate(providers, 1):
        say(f"  {number}. {provider.name}: {provider.summary}")
    number = click.prompt("number", type=click.IntRange(1, len(providers)), default=1, err=True)
    grant_now(providers[number - 1], spec.profile, ctx)
    return providers[number - 1].name


def _placed(
    agent: AgentProvider, spec: RunSpec, runtimes: Sequence[Runtime]
) -> tuple[RunSpec, tuple[str, ...], tuple[Mount, ...]]:
    """Return the run with its runtime, the words that start the program there, and what must be shown for it."""
    runtime = asyncio.run(choose(candidates(spec, runtimes), spec.runtime, spec.image))
    spec = replace(spec, runtime=runtime.name)
    if not runtime.sealed:
        raise UsageError(f"an agent needs a home of its own, and {runtime.name} has none", hint="use another --runtime")
    if runtime.images() is not None:
        return with_image(spec, agent), (agent.program,), ()
    program = find_program(agent.program, os.environ.get("PATH", os.defpath))
    if program is None:
        packages = " ".join(each.removeprefix("npm:") for each in agent.dependencies if each.startswith("npm:"))
        install = f"install it: npm install -g {packages}" if packages else "install it"
        raise RuntimeUnavailable(
            f"{agent.program} is not installed here, and {runtime.name} runs this machine's programs",
            hint=f"{install}; or use --runtime docker, for which moat builds an image",
        )
    return spec, program.words, program.mounts


def _session(sessions: Sessions, reference: str, home: Home) -> str:
    """Return the id of the session that is meant: the last one, one by its id, or that of a run."""
    if reference == LAST:
        return sessions.last()
    runs = RunStore(home)
    try:
        run = runs.find(reference)
    except RunNotFound:
        known = runs.list()
        if reference.startswith("run_") and any(each.run_id.startswith(reference) for each in known):
            raise  # several of them
        sessions.refer_to_others(home, reference, (each.workspace for each in known))
        run = None
    return sessions.named(reference, run)


def _host_files(agent: AgentProvider) -> Mapping[str, bytes]:
    """Return what stands in the files that the agent may see; what cannot be read is left out."""
    found = {}
    for name in agent.host_files:
        try:
            with (Path.home() / name).open("rb") as file:
                found[name] = file.read(HOST_FILE_BYTES)
        except OSError:
            continue
    return found
