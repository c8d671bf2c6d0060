"""What a run was decided to be, as one JSON text with one digest: what the audit and `runs/<id>/plan.json` hold. Pure.

Values of variables are left out, since they may be secret: their names are there, and what files hold is, by digest.
Known secrets that the command, a URL or a path holds are blotted out: `runs/<id>/plan.json` is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from moat.audit.canonical import canonical, plain
from moat.runs.blotting import Blotter, blotted, secrets_of
from moat.runs.merge import FILE

if TYPE_CHECKING:
    from moat.runs.plan import RunPlan

MAX_CHARS = 65_536


def plan_text(plan: RunPlan) -> bytes:
    """Return the plan as canonical JSON."""
    blotter = Blotter(secrets_of(plan), plan.known)
    sandbox, asked = plan.sandbox, plan.registration
    told = {
        "version": 1,
        "run_id": sandbox.run_id,
        "name": sandbox.name,
        "runtime": asked.runtime,
        "image": sandbox.image,
        "command": [_text(blotted(word, blotter)) for word in sandbox.argv],
        "variables": sorted(_text(name) for name in sandbox.env),
        "mounts": [[_text(str(each.source)), _text(each.target), each.read_only] for each in sandbox.mounts],
        "mounted": [_text(each) for each in _mounted(plan)],
        "files": {_key(path): _digest(content) for path, content in plan.files.items()},
        "workdir": sandbox.workdir,
        "copied": plan.copied is not None,
        "worktree": plan.worktree is not None,
        "branch": _text(plan.worktree.branch) if plan.worktree else "",
        "left_out": [_text(each) for each in plan.left_out],
        "hidden": {_key(path): _text(why) for path, why in plan.hidden.items()},
        "volumes": {_key(name): _text(target) for name, target in plan.volumes.items()},
        "services": [[each.name, _text(each.image), each.port] for each in sandbox.services],
        "allow_sockets": sandbox.allow_sockets,
        "limits": {name: str(value) for name, value in asdict(sandbox.limits).items()},
        "grants": list(asked.grants),
        "profile": asked.profile,
        "policy": asked.network_policy,
        "allow": [_text(each) for each in asked.network_allow],
        "rules": [_text(each) for each in asked.network_rules],
        "mcp": [[_text(each.name), _text(each.url), each.grant] for each in asked.mcp_servers],
        "ports": [[_text(each.name), each.port, *([each.publish] if each.publish else [])] for each in asked.endpoints],
        "host_ports": [[each.name, each.port] for each in asked.host_ports],
        "secrets": list(asked.secrets),
    }  # fmt: skip
    text = canonical(told)
    words = text.replace(b'\\"', b'"').replace(b"\\\\", b"\\")  # as they are without the escapes of JSON
    return canonical(_without_secrets(told, blotter)) if blotter.may_change(words) else text


def digest(text: bytes) -> str:
    """Return the digest of a plan's text, hex."""
    return hashlib.sha256(text).hexdigest()


def _without_secrets(value: Any, blotter: Blotter) -> Any:
    if isinstance(value, str):
        return blotted(value, blotter)
    if isinstance(value, list):
        return [_without_secrets(each, blotter) for each in value]
    return {key: _without_secrets(each, blotter) for key, each in value.items()} if isinstance(value, dict) else value


def _mounted(plan: RunPlan) -> Iterator[str]:
    """Yield where the user's own mounts are, as opposed to those that a run has for its sake, its grants or agent."""
    lasting = set(plan.volumes.values())
    for mount in plan.sandbox.mounts:
        owner = plan.origins.get(mount.target, "")
        if (owner == FILE or owner.startswith("--mount ")) and mount.target not in lasting:
            yield mount.target


def _text(value: str) -> str:
    return plain(value, MAX_CHARS)


def _key(path: object) -> str:
    return ascii(str(path))[1:-1]


def _digest(content: str | bytes) -> str:
    return digest(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
