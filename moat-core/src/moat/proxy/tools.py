"""Calls of MCP tools that a run may not make: found in the request's body, whole, and refused before any of it leaves.

    body ─▶ one JSON-RPC message or a batch of them ─▶ every `tools/call` names a tool that is listed ─▶ as it came
                                                        └─ anything else, or not to be read in one way only ─▶ 403

Some servers read names without regard to case, and of two equal ones the first, or the last: neither is passed on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from moat.api.http import RequestHead
from moat.api.rules import OnlyTools, Rule
from moat.net.paths import decoded_path
from moat.proxy.http1 import Request
from moat.proxy.inject import may_match
from moat.proxy.refusal import Refusal
from moat.proxy.substitute import Applied, BodyTask
from moat.proxy.upgrade import offered

CALL = "tools/call"


@dataclass(frozen=True, slots=True)
class ToolTask(BodyTask):
    """What a body is searched for beside placeholders. only: rules that all must allow it. then: what else is done."""

    only: tuple[OnlyTools, ...] = ()
    then: BodyTask | None = None

    @property
    def limit_bytes(self) -> int:
        """How much may be held."""
        return min(rule.limit_bytes for rule in self.only)

    def apply(self, body: bytes) -> Applied:
        """Return body as it leaves. Raises Refusal."""
        for called in tools_called(body):
            for rule in self.only:
                if called not in rule.tools:
                    raise _denied(f"the tool {called[:80]!r} is not one that this run may call")
        if self.then is None:
            return Applied(body)
        if len(body) > self.then.limit_bytes:
            self.then.give_up()
            return Applied(body)
        return self.then.apply(body)

    def give_up(self) -> None:
        """Refuse a body that is too long to be looked at."""
        reason = f"the body is longer than the {self.limit_bytes} bytes that are searched for tools"
        raise Refusal(413, reason, "denied", "tools")


def tool_task(
    rules: Iterable[Rule], head: RequestHead, request: Request, then: BodyTask | None, *, has_body: bool
) -> BodyTask | None:
    """Return what is to be done to the body where tools are limited, else then. head: as the client sent it."""
    path = decoded_path(head.path)
    only = tuple(rule for rule in rules if isinstance(rule, OnlyTools) and _is_for(rule, head, path))
    if not only:
        return then
    if offered(request):
        raise _denied("this server's tools are limited, and what an upgraded connection calls cannot be seen")
    coding = head.headers.get("content-encoding") or "identity"
    if has_body and coding.strip().lower() != "identity":
        raise Refusal(415, "a compressed body cannot be searched for tools; send it plain", "denied", "tools")
    return ToolTask((), None, only=only, then=then) if has_body else then


def tools_called(body: bytes) -> list[str]:
    """Return the tools that a body calls. Raises Refusal for what cannot be read in one way only."""
    try:
        content = json.loads(body.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise _denied("the body is no JSON that can be read in one way only") from None
    called = []
    for message in content if isinstance(content, list) else [content]:
        if not isinstance(message, dict):
            raise _denied("the body is no JSON-RPC message, and no batch of them")
        _demand_plain(message, "method", "params")
        if message.get("method") == CALL:
            called.append(_tool(message.get("params")))
    return called


def _tool(params: object) -> str:
    name = None
    if isinstance(params, dict):
        _demand_plain(params, "name")
        name = params.get("name")
    if not isinstance(name, str):
        raise _denied("a tool is called without its name")
    return name


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name that stands twice")
    return found


def _demand_plain(found: dict[str, object], *names: str) -> None:
    if any(key not in names and key.lower() in names for key in found):
        raise _denied(f"the body writes {' or '.join(names)} in another case")


def _is_for(rule: OnlyTools, head: RequestHead, path: str | None) -> bool:
    """Whether a rule is for a request; one whose path can be read in two ways falls under it, since it forbids."""
    return (path is None and bool(rule.match.paths)) or may_match(rule.match, head, path)


def _denied(reason: str) -> Refusal:
    return Refusal(403, reason, "denied", "tools")
