"""A session policy: what a session may do at most, of what its role or user may. Checked as STS would. Pure.

FILE or JSON, as typed ─▶ parsed, each statement looked at ─▶ compact text, 2048 characters at most ─▶ STS `Policy`
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from moat.api import GrantFailed

LIMIT_CHARS = 2048  # of the parameter `Policy` of AssumeRole and GetFederationToken
_READ_LIMIT_BYTES = 64 * 1024
_SHAPE = (
    'write it like {"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}'
)


def read_policy(typed: str, read: Callable[[Path], bytes | None]) -> str:
    """Return a policy from --session-policy: JSON as it is, else a file's. Raises GrantFailed."""
    if typed.lstrip()[:1] in ("{", "["):
        return checked_policy(typed)
    data = read(Path(typed).expanduser()) if typed else None
    if data is None:
        raise _wrong("--session-policy is neither JSON nor a file that there is", "name a file, or write the JSON")
    try:
        return checked_policy(data[: _READ_LIMIT_BYTES + 1].decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _wrong("the session policy is not text", _SHAPE) from None


def checked_policy(text: str) -> str:
    """Return a policy as it is sent, without spaces that say nothing. Raises GrantFailed naming what is wrong."""
    if len(text) > _READ_LIMIT_BYTES:
        raise _too_long(len(text))
    try:
        policy = json.loads(text, object_pairs_hook=_without_twins)
    except _Twice:
        raise _wrong("the session policy says something twice, and only one of the two would count", _SHAPE) from None
    except (ValueError, RecursionError) as failure:
        where = f" (line {failure.lineno})" if isinstance(failure, json.JSONDecodeError) else ""
        raise _wrong(f"the session policy is no JSON{where}", _SHAPE) from None
    _check_statements(policy)
    compact = json.dumps(policy, separators=(",", ":"))  # ASCII: STS takes no character beyond U+00FF
    if len(compact) > LIMIT_CHARS:
        raise _too_long(len(compact))
    return compact


def digest(policy: str) -> str:
    """Return what tells a policy from others, in few characters."""
    return hashlib.sha256(policy.encode()).hexdigest()[:12]


def summary(policy: str) -> str:
    """Return what `moat grant show` tells of a policy: which, and how much it is; the text is nobody's to see."""
    statements = json.loads(policy)["Statement"]
    number = len(statements) if isinstance(statements, list) else 1
    return f"sha256 {digest(policy)}, {number} statement{'s' * (number != 1)}, {len(policy)} characters"


class _Twice(Exception):
    pass


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


def _check_statements(policy: object) -> None:
    statements = policy.get("Statement") if isinstance(policy, dict) else None
    for each in statements if isinstance(statements, list) and statements else [statements]:
        if not isinstance(each, dict) or each.get("Effect") not in ("Allow", "Deny"):
            raise _wrong("the session policy has no Statement with an Effect of Allow or Deny", _SHAPE)
        if "Principal" in each or "NotPrincipal" in each:
            raise _wrong("a session policy names no Principal: it is for the session's own", "leave Principal out")
        if not ({"Action", "NotAction"} & each.keys() and {"Resource", "NotResource"} & each.keys()):
            raise _wrong("a statement of the session policy lacks its Action or its Resource", _SHAPE)


def _too_long(length: int) -> GrantFailed:
    problem = f"the session policy has {length} characters, and STS takes {LIMIT_CHARS}"
    return _wrong(problem, "shorten it: fewer statements, or actions with *")


def _wrong(problem: str, hint: str) -> GrantFailed:
    return GrantFailed(f"{problem}; nothing was saved", hint=hint)
