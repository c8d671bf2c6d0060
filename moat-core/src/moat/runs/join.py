"""Makes one more agent's command for a run that is live already: what it finds there, and what is still missing. Pure.

A run is registered with its grants, hosts and mounts; none of these is added to by who joins it. So an agent can join a
run that spends a credential of its kind, and its sessions last as long as the run, unless that was begun as its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from moat.api.agents import AgentProvider, AgentRequest, Surroundings
from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.runs.begin import SHELL, begin_script

NOT_FOUND = 127  # POSIX 2.8.2


def grant_of(agent: AgentProvider, info: RunInfo) -> str:
    """Return the grant of the run that the agent runs on. Raises UsageError where it has none."""
    if known := [name for name in agent.grants if name in info.grants]:
        return known[0]
    needed = " or ".join(agent.grants)
    raise UsageError(
        f"{info.name} spends no credential that {agent.name} runs on ({needed})",
        hint=f"start a run that does: moat run --grant {agent.grants[0]} -- COMMAND",
    )


def join_command(agent: AgentProvider, request: AgentRequest, around: Surroundings) -> tuple[str, ...]:
    """Return the command. Files that are there already, of an agent that works beside it, stay as they are."""
    setup = agent.setup(request, around)
    command = tuple(agent.command(request, around))
    variables = [f"{name}={value}" for name, value in setup.env.items()]
    script = _checked(agent, around.program) + _script(setup.files, around.home)
    return (SHELL, "-c", script, "moat-join", "env", *variables, *command)


def _script(files: Mapping[str, str], home: str) -> str:
    return begin_script(files, home, replaces=False) if files else 'exec "$@"\n'


def _checked(agent: AgentProvider, program: Sequence[str]) -> str:
    """Return shell that ends where a word of the program is not there: what it is, or what it is run by."""
    told = f"moat: {agent.program} is not in this run: use an image that has it, or start moat {agent.name} by itself"
    there = f"command -v {shlex.quote(program[0])} >/dev/null"
    there += "".join(f" && test -e {shlex.quote(word)}" for word in program[1:] if word.startswith("/"))
    return f"{{ {there}; }} || {{ echo {shlex.quote(told)} >&2; exit {NOT_FOUND}; }}\n"
