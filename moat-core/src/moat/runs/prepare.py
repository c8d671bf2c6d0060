"""From what was asked to what will be done: a runtime is chosen, the daemon is there, the plan is made.

Nothing of the run exists yet, so a refusal leaves nothing behind but a daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moat.api.errors import RuntimeUnavailable
from moat.api.runs import RunSpec
from moat.api.runtimes import Runtime
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running
from moat.paths import Home
from moat.runs.collect import collect
from moat.runs.plan import Facts, RunPlan, plan
from moat.runtimes.detect import choose


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can be launched."""

    facts: Facts
    plan: RunPlan
    runtime: Runtime
    client: DaemonClient


def prepare(
    spec: RunSpec,
    home: Home,
    runtimes: Sequence[Runtime],
    env: Mapping[str, str],
    terminal: tuple[int, int] | None = None,
) -> Prepared:
    """Return the run that spec asks for, ready to launch. Blocking; call it outside of an event loop.

    env: the CLI's environment, of which only how output looks is passed on.
    Raises RuntimeUnavailable, DaemonError, GrantMissing and what else the daemon refuses, UsageError, PlanConflict.
    """
    runtime = asyncio.run(_chosen(spec, runtimes))
    client = ensure_running(home)
    facts = collect(spec, home, client, runtime, env, terminal)
    return Prepared(facts, plan(spec, facts), runtime, client)


async def _chosen(spec: RunSpec, runtimes: Sequence[Runtime]) -> Runtime:
    """Return the runtime that holds the run. Raises RuntimeUnavailable when it could not hold it to its limits."""
    runtime = await choose(runtimes, spec.runtime, spec.image)
    if unenforced := await runtime.unenforced(spec.limits):
        problem = f"the runtime {runtime.name} cannot hold a run to a limit of {', '.join(unenforced)} here"
        other = "take it out of container in moat.yaml"
        hint = f"use --runtime docker, or {other}" if runtime.name != "docker" else other
        raise RuntimeUnavailable(problem, hint=hint)
    return runtime
