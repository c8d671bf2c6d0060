"""Reads back from a live run's plan (`plan.json`) what an agent that joins it is told: what the first one was. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from moat.api.agents import Beside
from moat.api.errors import UsageError
from moat.api.runs import HostPort, McpServer, NetworkPolicy, PolicyMode
from moat.config.mounts import WORKSPACE
from moat.net.rules import parse_rule
from moat.runs.agent import relayed


@dataclass(frozen=True, slots=True)
class Planned:
    """Each as in Surroundings."""

    policy: NetworkPolicy
    mcp: Mapping[str, str] = field(default_factory=dict)
    works_on_a_copy: bool = False
    beside: Beside = field(default_factory=Beside)


def read_plan(text: bytes) -> Planned:
    """Return what a plan says. Raises ValueError for one that is none, or of a moat that wrote less."""
    try:
        plan = json.loads(text)
        rules = tuple(map(parse_rule, plan["rules"]))
        mode: PolicyMode = "strict" if plan["policy"] == "strict" else "permissive"
        servers = tuple(McpServer(name, url, grant) for name, url, grant in plan["mcp"])
        policy = NetworkPolicy(mode, tuple(plan["allow"]), rules)
        return Planned(policy, relayed(servers), bool(plan["copied"]), _beside(plan))
    except (KeyError, TypeError, AttributeError, UsageError) as failure:
        raise ValueError(f"it is no plan ({type(failure).__name__})") from None


def _beside(plan: Any) -> Beside:
    mounted = set(plan["mounted"])
    shown = [(target, read_only) for _, target, read_only in plan["mounts"] if target in mounted]
    host_ports = [HostPort(port, name) for name, port in plan["host_ports"]]
    return Beside(
        branch=str(plan["branch"]),
        shared=tuple(target for target, read_only in shown if not read_only),
        shown=tuple(target for target, read_only in shown if read_only),
        lasting=tuple(plan["volumes"].values()),
        hides=bool(plan["left_out"]) or any(PurePosixPath(path).is_relative_to(WORKSPACE) for path in plan["hidden"]),
        services={name: port for name, _, port in plan["services"]},
        host_ports=tuple(map(str, host_ports)),
        ports={each[0]: each[1] for each in plan["ports"]},
    )
