"""Finds out everything that a plan needs: asks the daemon, looks at paths, reads the host's roots. Makes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from moat.api.runs import RunSpec
from moat.api.runtimes import Runtime
from moat.config.mounts import WORKSPACE
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import patiently
from moat.daemon.protocol import SetupRequest, SetupResponse
from moat.ids import checked_name, new_name, new_run_id, new_token
from moat.paths import Home
from moat.runs.merge import rule_lines
from moat.runs.plan import PASSED_ON, Facts, Found
from moat.runs.trust import host_roots

if TYPE_CHECKING:
    from moat.runs.masks import Hidden

PASSWORD_LENGTH = 24  # hex digits, which need no quoting in any URL or shell
Kind = Literal["folder", "file", "socket", "other", "absent"]


def collect(
    spec: RunSpec,
    home: Home,
    client: DaemonClient,
    runtime: Runtime,
    env: Mapping[str, str],
    terminal: tuple[int, int] | None,
) -> Facts:
    """Return the facts for one run, with its new id and name. Blocking: the daemon may ask a keyring.

    Raises what the daemon says about the grants (GrantMissing, StoreLocked, UsageError, …), DaemonError.
    """
    name = checked_name(spec.name, "run") if spec.name else new_name()
    return Facts(
        run_id=new_run_id(),
        name=name,
        home=Home(home.root.resolve()),
        runtime=runtime.name,
        setup=_setup(spec, name, home, client),
        paths={path: found_at(path) for path in (spec.workspace, *(mount.source for mount in spec.mounts))},
        is_sealed=runtime.sealed,
        has_door=runtime.door,
        needs_image=runtime.needs_image,
        roots=host_roots(),
        passed={name: env[name] for name in PASSED_ON if name in env},
        terminal=terminal,
        hidden=_hidden(spec) if spec.hidden else {},
        passwords={service.name: new_token()[:PASSWORD_LENGTH] for service in spec.services},
    )


def found_at(path: Path) -> Found:
    """Return what path is, with every link followed."""
    try:
        resolved = path.resolve(strict=True)
        mode = resolved.stat().st_mode
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        return Found(path, "absent")
    return Found(resolved, _kind(mode))


def _hidden(spec: RunSpec) -> dict[str, tuple[Hidden, ...]]:
    """Return what the run is not shown of its workspace, also where a mount shows a part of that, and of its mounts."""
    from moat.config.excludes import Exclude, is_hidden, parse_exclude
    from moat.runs.hidden import hidden_in

    rules = {target: [parse_exclude(text) for text in patterns] for target, patterns in spec.hidden.items()}
    workspace, of_all = found_at(spec.workspace).resolved, rules.pop(WORKSPACE, [])
    found = {WORKSPACE: hidden_in(workspace, [((), each) for each in of_all])}
    for mount in spec.mounts:
        source = found_at(mount.source).resolved
        own: list[tuple[tuple[str, ...], Exclude]] = [((), each) for each in rules.get(mount.target, [])]
        before = source.relative_to(workspace).parts if source.is_relative_to(workspace) else None
        if before is not None and not is_hidden(of_all, before, is_folder=True):  # else it is shown on purpose
            own += [(before, each) for each in of_all]
        found[mount.target] = hidden_in(source, own) if own else ()
    return found


def _kind(mode: int) -> Kind:
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    return "socket" if stat.S_ISSOCK(mode) else "other"


def _setup(spec: RunSpec, name: str, home: Home, client: DaemonClient) -> SetupResponse:
    request = SetupRequest(
        grants=spec.grants,
        name=name,
        workspace=os.fspath(spec.workspace),
        command=spec.command,
        network_policy=spec.policy.mode,
        network_allow=spec.policy.allow,
        network_rules=rule_lines(spec.policy),
        profile=spec.profile,
        mcp_grants=tuple(dict.fromkeys(each.grant for each in spec.mcp if each.grant)),
    )
    return patiently(home, client, lambda asked: asked.setup(request))
