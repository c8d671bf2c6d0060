"""From a request to values: the run's spec, policy, context and record. Pure; names are checked here."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from moat.api.endpoints import UnixPath
from moat.api.errors import UsageError
from moat.api.runs import NetworkPolicy, PolicyMode, RunContext, RunInfo, RunSpec
from moat.config.mounts import checked_target
from moat.daemon.grants import Resolved
from moat.daemon.protocol import RegisterRequest, SetupRequest, SetupResponse
from moat.daemon.registry import hash_token
from moat.daemon.rule_words import rule_words
from moat.ids import checked_name, checked_profile, checked_run_id, new_name, new_token
from moat.net.hosts import HostPattern
from moat.net.rules import parse_rule
from moat.redaction import SecretMarks
from moat.runtimes.places import Row, places_of

TOKEN = re.compile(r"[0-9a-f]{64}")


def checked_policy(mode: str, allow: tuple[str, ...], rules: tuple[str, ...] = ()) -> NetworkPolicy:
    """Return the policy. Raises UsageError for a mode, a pattern or a rule that is not understood."""
    modes: dict[str, PolicyMode] = {each: each for each in get_args(PolicyMode)}
    if mode not in modes:
        raise UsageError(f"{mode!r} is not a network policy", hint=f"choose one of: {', '.join(modes)}")
    for pattern in allow:
        HostPattern.parse(pattern)
    return NetworkPolicy(modes[mode], allow, tuple(parse_rule(line) for line in rules))


def spec_of(request: SetupRequest | RegisterRequest) -> RunSpec:
    """Return what plugins are shown of a request."""
    return RunSpec(
        workspace=Path(request.workspace),
        command=request.command,
        name=request.name,
        grants=request.grants,
        policy=checked_policy(request.network_policy, request.network_allow, request.network_rules),
        runtime=request.runtime if isinstance(request, RegisterRequest) else "",
        profile=checked_profile(request.profile),
    )


def setup_of(resolved: Resolved, ca_certificate: str, known: SecretMarks) -> SetupResponse:
    """Return what a run is to find inside."""
    setup = resolved.setup
    return SetupResponse(
        env=dict(setup.env),
        files=dict(setup.files),
        mounts=tuple((str(mount.source), mount.target, mount.read_only) for mount in setup.mounts),
        hosts=resolved.hosts,
        ca_certificate=ca_certificate,
        rules=tuple(rule_words(rule) for rule in resolved.rules),
        known=known,
    )


def checked_register(request: RegisterRequest) -> RegisterRequest:
    """Return request if its names are names. Raises UsageError: what is a path in disguise gets no further."""
    checked_run_id(request.run_id)
    checked_profile(request.profile)
    for text, what in ((request.name, "run"), (request.runtime, "runtime")):
        if text:
            checked_name(text, what)
    if request.auth_token and TOKEN.fullmatch(request.auth_token) is None:
        raise UsageError("auth_token is no run token", hint="leave it out to get one")
    if request.plan_sha256 and TOKEN.fullmatch(request.plan_sha256) is None:
        raise UsageError("plan_sha256 is no SHA-256 in hex", hint="leave it out where there is no plan")
    return request


def token_of(request: RegisterRequest) -> str:
    """Return the token that a run is to have: the one it had, or a fresh one."""
    return request.auth_token or new_token()


def places_for(resolved: Resolved) -> tuple[Row, ...]:
    """Return the sockets that a run's endpoints need inside. Raises UsageError and MoatError for what cannot be."""
    wheres = [endpoint.where for endpoint in resolved.endpoints]
    for where in wheres:
        if isinstance(where, UnixPath):
            checked_target(where.path)
    return places_of(wheres)


def context_of(request: RegisterRequest, policy: NetworkPolicy, resolved: Resolved, token: str) -> RunContext:
    """Return a run's snapshot for the proxy. Closed until it has proved that it is sealed; open without a door."""
    return RunContext(
        run_id=request.run_id,
        token_sha256=hash_token(token),
        policy=policy,
        rules=resolved.rules,
        endpoints=resolved.endpoints,
        is_open=not request.needs_door,
        trace_bodies=request.trace_bodies,
    )


def info_of(request: RegisterRequest, policy: NetworkPolicy) -> RunInfo:
    """Return what is written down about a run that begins."""
    return RunInfo(
        run_id=request.run_id,
        name=request.name or new_name(),
        runtime=request.runtime,
        policy=policy.mode,
        grants=request.grants,
        workspace=request.workspace,
        command=request.command,
        started_at=now(),
        profile=checked_profile(request.profile),
    )


def now() -> str:
    """Return the time as it is written down: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
