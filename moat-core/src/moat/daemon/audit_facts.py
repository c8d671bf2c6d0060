"""What of a run is entered into the audit: names, digests and decisions; no secret, no argument of a command. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import PurePosixPath

from moat.api.runs import RunInfo
from moat.audit.canonical import canonical, plain
from moat.daemon.grants import Mark, Resolved
from moat.daemon.protocol import RegisterRequest
from moat.proxy.messages import Configure


def started(request: RegisterRequest, info: RunInfo) -> dict[str, object]:
    """Return what is entered when a run begins. plan: of the launcher's whole plan, else of what was registered."""
    program = PurePosixPath(info.command[0]).name if info.command else ""
    return {
        "name": plain(info.name),
        "runtime": plain(request.runtime),
        "profile": plain(request.profile),
        "workspace": plain(request.workspace, 4096),
        "program": plain(program),
        "grants": [plain(name) for name in request.grants],
        "values": len(request.credentials) + len(request.extra_headers) + len(request.token_substitutions),
        "secrets": [plain(name) for name in request.secrets],
        "plan": plain(request.plan_sha256, 64) or plan_of(request),
        **policy(request),
    }


def policy(request: RegisterRequest) -> dict[str, object]:
    """Return what may leave: the mode, and a digest of everything that it says."""
    ports = [f"{each.name} {each.port}" for each in request.host_ports]
    whole = [request.network_policy, list(request.network_allow), list(request.network_rules), ports]
    whole = [plain(each, 64) if isinstance(each, str) else [plain(text, 4096) for text in each] for each in whole]
    return {"policy": plain(request.network_policy), "policy_sha256": hashlib.sha256(canonical(whole)).hexdigest()}


def plan_of(request: RegisterRequest) -> str:
    """Return a digest of what was registered, for launchers that have no plan."""
    shown = (request.run_id, request.command, request.grants, request.workspace, request.runtime, request.profile,
             request.network_policy, request.network_allow, request.network_rules)  # fmt: skip
    return hashlib.sha256(repr(shown).encode("utf-8", "backslashreplace")).hexdigest()


def resolved(mark: Mark) -> dict[str, object]:
    """Return what is entered when a grant's secret was read for a run. credential: tells one from the next."""
    return {"grant": plain(mark.grant), "profile": plain(mark.profile), "credential": plain(mark.stored, 16)}


def marks_of(found: Resolved) -> list[dict[str, object]]:
    """Return that for each grant of a run."""
    return [resolved(mark) for mark in found.marks]


def settings(configuration: Configure) -> dict[str, object]:
    """Return what is entered when the installation's settings are others than before: a digest, and the ranges."""
    told = {name: value for name, value in asdict(configuration).items() if name != "ca_key"}
    shown = repr(sorted(told.items())).encode("utf-8", "backslashreplace")
    return {"sha256": hashlib.sha256(shown).hexdigest(), "allow_cidrs": [plain(each) for each in told["allow_cidrs"]]}
