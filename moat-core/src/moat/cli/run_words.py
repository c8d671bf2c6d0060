"""What `moat run` says about a run, in words and in JSON. Text only: nothing is looked up but a run's denials."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from moat.api.runs import ExchangeRecord, RunInfo, RunSpec
from moat.net.rules import rule_text
from moat.runs.merge import FILE, secret_of
from moat.runs.prepare import Prepared
from moat.trace.network import read_exchanges

SHOWN_LINES = 4  # more than that nobody adds by hand
_GIVEN = "-e"  # the origin of a user's own variable: its value may be a secret, and is not repeated
_TELLING_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|PRIVATE_KEY|CREDENTIALS?)$", re.IGNORECASE)


def start_line(prepared: Prepared, spec: RunSpec, *, is_sealed: bool) -> str:
    """Return the one line that is said when the run begins."""
    parts = [prepared.facts.name, prepared.runtime.name, spec.policy.mode]
    parts.append(f"grants: {', '.join(spec.grants)}" if spec.grants else "no grants")
    parts += [FILE] if FILE in spec.origins.values() else []
    parts.append("sealed ✓" if is_sealed else "NOT sealed")
    return "moat: " + " · ".join(parts)


def end_line(info: RunInfo, network: Path) -> str:
    """Return the one line that is said at the end. network: the run's exchanges, read only if some were denied."""
    parts = [info.name, _counted(info.requests, "request")]
    if info.denied:
        parts.append(f"{info.denied} denied")
        parts += _ways_out(read_exchanges(network))
        parts.append(f"see: moat trace {info.name} --network")
    return "moat: " + " · ".join(parts)


def own_secrets(spec: RunSpec) -> list[str]:
    """Return a warning for each variable of the user's that is a secret, or whose name says so."""
    warnings = []
    for name, value in spec.env.items():
        if reference := secret_of(spec, name):
            what = f"{name} (secrets in {FILE}, {reference}) is a variable inside, and the run can read it"
            warnings.append(f"{what}; moat grant keeps it outside")
        elif value and _TELLING_NAME.search(name):
            owner = spec.origins.get(f"env.{name}", "-e")
            warnings.append(
                f"{owner} {name} looks like a credential, and the run can read it; moat grant keeps it outside"
            )
    return warnings


def as_text(prepared: Prepared, spec: RunSpec) -> str:
    """Return what would be run, for a person."""
    plan, sandbox = prepared.plan, prepared.plan.sandbox
    sealed = "sealed" if prepared.runtime.sealed else "NOT sealed"
    lines = [
        f"command    {shlex.join(sandbox.argv)}",
        f"runtime    {prepared.runtime.name} ({sealed}){f', image {sandbox.image}' if sandbox.image else ''}",
        f"policy     {spec.policy.mode}{''.join(f' + {host}' for host in spec.policy.allow)}",
        *(f"  {rule_text(rule)}" for rule in spec.policy.rules),
        f"grants     {', '.join(spec.grants) or 'none'}",
    ]
    if prepared.facts.setup.hosts:
        lines.append(f"spent on   {', '.join(prepared.facts.setup.hosts)}")
    lines.append("inside")
    for mount in sandbox.mounts:
        origin = plan.origins[mount.target]
        source = "" if mount.source in plan.files else f" = {mount.source}"
        lines.append(f"  {mount.target}{source}{' (read-only)' if mount.read_only else ''}  [{origin}]")
    lines.append("variables")
    lines += [f"  {name}={value}  [{plan.origins[name]}]" for name, value in _shown_env(prepared).items()]
    return "\n".join(lines)


def as_json(prepared: Prepared, spec: RunSpec) -> dict[str, object]:
    """Return what would be run, for a program."""
    plan, sandbox = prepared.plan, prepared.plan.sandbox
    return {
        "command": list(sandbox.argv),
        "workspace": str(sandbox.mounts[0].source),
        "runtime": prepared.runtime.name,
        "sealed": prepared.runtime.sealed,
        "image": sandbox.image,
        "policy": {
            "mode": spec.policy.mode,
            "allow": list(spec.policy.allow),
            "rules": [rule_text(rule) for rule in spec.policy.rules],
        },
        "grants": list(spec.grants),
        "spent_on": list(prepared.facts.setup.hosts),
        "mounts": [
            {
                "source": None if mount.source in plan.files else str(mount.source),
                "target": mount.target,
                "read_only": mount.read_only,
                "from": plan.origins[mount.target],
            }
            for mount in sandbox.mounts
        ],
        "variables": {
            name: {"value": value, "from": plan.origins[name]} for name, value in _shown_env(prepared).items()
        },
        "warnings": list(plan.warnings),
    }


def _shown_env(prepared: Prepared) -> dict[str, str]:
    origins = prepared.plan.origins
    env = prepared.plan.sandbox.env
    return {name: "(as given)" if origins[name] == _GIVEN else env[name] for name in sorted(env)}


def _ways_out(exchanges: Iterable[ExchangeRecord]) -> list[str]:
    """Return what would let the denied requests out, each once, in the order they came."""
    lines = list(dict.fromkeys(each.allow_line for each in exchanges if each.outcome == "denied" and each.allow_line))
    if not lines:
        return []
    rest = f" and {len(lines) - SHOWN_LINES} more" if len(lines) > SHOWN_LINES else ""
    place = " (a --rule before the one that denies)" if any(line.startswith("--rule") for line in lines) else ""
    return [f"to allow: {' '.join(lines[:SHOWN_LINES])}{rest}{place}"]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
