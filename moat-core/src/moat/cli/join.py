"""`moat join`: one more agent in a live run, beside what works there, under the same seal and with the same grants."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime

import click

from moat.api.agents import AgentProvider, AgentRequest, Surroundings
from moat.api.errors import UsageError
from moat.api.runs import NetworkPolicy, RunInfo
from moat.api.runtimes import Stdio
from moat.cli.agents import agent_called
from moat.cli.dashes import DashedCommand, after_dashes
from moat.cli.known import complete_agents, complete_live_runs
from moat.cli.output import warn
from moat.cli.reach import live_run
from moat.config.mounts import WORKSPACE
from moat.paths import Home, find_home
from moat.runs.attach import Attachment, fill_closed, own_terminal
from moat.runs.execute import execute
from moat.runs.host_program import find_program
from moat.runs.join import grant_of, join_command
from moat.runs.plan import INSIDE_HOME
from moat.runs.planned import Planned, read_plan
from moat.runs.reach import connected
from moat.store.credentials import CredentialStore


@click.command("join", cls=DashedCommand)
@click.argument("name", metavar="RUN", shell_complete=complete_live_runs)
@click.argument("agent_name", metavar="AGENT", shell_complete=complete_agents)
@click.option("-p", "--prompt", default="", metavar="TEXT", help="Do this, print the answer, and end.")
@click.option("--model", default="", metavar="M", help="The model to ask.")
@click.option("--noyolo", is_flag=True, help="Have it ask before it acts; it need not, since it is sealed.")
@click.pass_context
def join(ctx: click.Context, name: str, agent_name: str, prompt: str, model: str, noyolo: bool) -> int:
    """Start an agent in a live run, beside what works there.

    It has what the run has and may what the run may: the run must spend a credential that the agent runs on, and have
    its program. It ends with the run, or when this command line goes. The exit code is the agent's.
    """
    fill_closed()
    home, stdio = find_home(), Stdio(0, 1, 2)
    agent = agent_called(agent_name)
    info = live_run(home, name)
    if not prompt and not os.isatty(sys.stdin.fileno()):
        hint = f"run: moat join {name} {agent_name} -p PROMPT"
        raise UsageError(f"there is no terminal to talk to {agent_name} in", hint=hint)
    request = AgentRequest(prompt, "", model, not noyolo, after_dashes(ctx) or ())
    grant, planned = grant_of(agent, info), _planned(home, info)
    around = Surroundings(
        home=INSIDE_HOME,
        workspace=WORKSPACE,
        program=_program(agent, info.runtime),
        now=datetime.now(UTC),
        grant=grant,
        grants=tuple(info.grants),
        metadata=CredentialStore(home, profile=info.profile).describe(grant).metadata,
        policy=planned.policy,
        mcp=planned.mcp,
        works_on_a_copy=planned.works_on_a_copy,
        beside=planned.beside,
    )
    argv = join_command(agent, request, around)
    sock = connected(home, info)
    return asyncio.run(execute(sock, argv, Attachment(stdio), own_terminal(stdio)))


def _planned(home: Home, info: RunInfo) -> Planned:
    """Return what the run was planned to be; of a run of an older moat, no more than its record says."""
    try:
        return read_plan((home.run(info.run_id) / "plan.json").read_bytes())
    except (OSError, ValueError) as failure:
        warn(f"the plan of {info.name} cannot be read: {failure}; the agent is told its policy, and no more")
        return Planned(NetworkPolicy("strict" if info.policy == "strict" else "permissive"))


def _program(agent: AgentProvider, runtime: str) -> tuple[str, ...]:
    """Return the words that start the program: an image has it on its PATH, bubblewrap where this machine has it."""
    found = None
    if runtime == "bubblewrap":
        found = find_program(agent.program, os.environ.get("PATH", os.defpath))
    return found.words if found is not None else (agent.program,)
