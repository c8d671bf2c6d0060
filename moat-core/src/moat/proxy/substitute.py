"""Placeholders in a request become the secret: in declared places, for the owning authority, all of them or none.

    head ─▶ substitute ─▶ head, and a BodyTask where a body has to be looked at
    body, whole ─▶ BodyTask.apply ─▶ body          a larger one goes out as it came

Pure; `server/hold.py` collects bodies. A request that must carry a placeholder and does not is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import quote, quote_plus

from moat.api.http import Headers, RequestHead
from moat.api.rules import CaptureToken, ReplaceToken, Rule
from moat.net.paths import decoded_path
from moat.proxy.capture import demanded, not_renewing
from moat.proxy.holds import Holds
from moat.proxy.inject import NOT_FOR_RULES, matches
from moat.proxy.refusal import Refusal

_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Applied:
    """A body as it leaves, the grants spent on it, and how many placeholders were found, each once."""

    body: bytes = field(repr=False)
    grants: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class BodyTask:
    """What is to be done to a body. encode: how a value is written there; None for a kind of body that is not searched.

    missing: the rules that demand their placeholder and did not find it in the head. capture: what the answer to it
    falls under; it must then be the request that renews the grant. headers: as the client sent them. holds: of its run.
    """

    rules: tuple[ReplaceToken, ...] = field(repr=False)
    encode: Callable[[str], str] | None
    missing: tuple[ReplaceToken, ...] = field(default=(), repr=False)
    capture: CaptureToken | None = None
    headers: Headers = field(default_factory=Headers, repr=False)
    holds: Holds = field(default_factory=Holds, repr=False)

    @property
    def limit_bytes(self) -> int:
        """How much may be held; 0 where nothing is searched."""
        limits = [rule.limit_bytes for rule in self.rules]
        if self.capture is not None:
            limits.append(self.capture.limit_bytes)
        return 0 if self.encode is None else min(limits)

    def apply(self, body: bytes) -> Applied:
        """Return body with placeholders replaced. Raises Refusal."""
        if self.capture is not None:
            demanded(self.capture, self.headers, body)
        found: list[ReplaceToken] = []
        for rule in self.rules if self.encode is not None else ():
            placeholder = rule.placeholder.encode()
            if placeholder in body and self.encode is not None:
                body = body.replace(placeholder, self.encode(rule.value).encode())
                found.append(rule)
        _demand([rule for rule in self.missing if rule not in found])
        return Applied(body, tuple(dict.fromkeys(rule.grant for rule in found if rule.grant)), len(found))

    def give_up(self) -> None:
        """Take note that the body is not searched, since it is too large or of another kind. Raises Refusal."""
        must = self.missing or self.capture is not None
        if must and self.encode is None:
            raise Refusal(415, "a body of this kind cannot be searched for the placeholder it must hold", kind="body")
        if must:
            reason = f"the body is longer than the {self.limit_bytes} bytes that are searched for its placeholder"
            raise Refusal(413, reason, kind="body")


@dataclass(frozen=True, slots=True)
class Substituted:
    """A head with placeholders replaced, the grants spent on it, the values that leave or may leave with the body.

    count: the placeholders that were found, each once.
    """

    head: RequestHead = field(repr=False)
    grants: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    body: BodyTask | None = None
    count: int = 0

    @property
    def renewed(self) -> tuple[str, ...]:
        """The grants whose placeholder was found, or may be in the body."""
        return self.grants if self.body is None else (*self.grants, *(rule.grant for rule in self.body.rules))


def substitute(rules: Iterable[Rule], head: RequestHead, *, has_body: bool) -> Substituted:
    """Return head with its placeholders replaced. rules: those for head's authority. Raises Refusal."""
    ours = [rule for rule in rules if isinstance(rule, ReplaceToken)]
    if not ours or head.authority.scheme != "https":
        return Substituted(head)
    path = decoded_path(head.path)
    ours = [rule for rule in ours if matches(rule.match, head, path)]
    found: list[ReplaceToken] = []
    for rule in ours:
        changed = _in_head(rule, head)
        if changed != head:
            head = changed
            found.append(rule)
    missing = [rule for rule in ours if rule.require and rule not in found]
    bodily = tuple(rule for rule in ours if has_body and "body" in rule.where)
    _demand([rule for rule in missing if rule not in bodily])
    task = _task(bodily, missing, head) if bodily else None
    spent = [rule for rule in ours if rule in found or rule in bodily]
    grants = tuple(dict.fromkeys(rule.grant for rule in found if rule.grant))
    return Substituted(head, grants, tuple(rule.value for rule in spent), task, len(found))


def captured_body(
    capture: CaptureToken, head: RequestHead, task: BodyTask | None, *, has_body: bool
) -> BodyTask | None:
    """Return what is to be done to the body of a request to a token endpoint. head: as it leaves. Raises Refusal.

    A query could say otherwise than the body what is asked for, so there is none.
    """
    if not capture.request:
        return task
    if not has_body or "?" in head.target:
        raise not_renewing(capture)
    found = task or _task((), [], head)
    return replace(found, capture=capture, headers=head.headers)


def _in_head(rule: ReplaceToken, head: RequestHead) -> RequestHead:
    path, mark, query = head.target.partition("?")
    written = quote(rule.value, safe=":")
    if "path" in rule.where:
        path = path.replace(rule.placeholder, written)
    if "query" in rule.where:
        query = query.replace(rule.placeholder, written)
    head = replace(head, target=f"{path}{mark}{query}")
    if "header" not in rule.where:
        return head
    return head.with_headers(Headers(tuple((name, _in_field(rule, name, value)) for name, value in head.headers)))


def _in_field(rule: ReplaceToken, name: str, value: str) -> str:
    if name.lower() in NOT_FOR_RULES:
        return value
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return value
        changed = pair.replace(rule.placeholder.encode(), rule.value.encode())
        return value if changed == pair else f"{scheme} {base64.b64encode(changed).decode()}"
    return value.replace(rule.placeholder, rule.value)


def _task(rules: tuple[ReplaceToken, ...], missing: list[ReplaceToken], head: RequestHead) -> BodyTask:
    if (coding := head.headers.get("content-encoding")) and coding.strip().lower() != "identity":
        raise Refusal(415, "a compressed body cannot be searched for placeholders; send it plain", kind="body")
    kind = (head.headers.get("content-type") or "").partition(";")[0].strip().lower()
    return BodyTask(rules, _encoding(kind), tuple(missing))


def _encoding(kind: str) -> Callable[[str], str] | None:
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return lambda value: json.dumps(value)[1:-1]
    return quote_plus if kind == _FORM else None


def _demand(missing: list[ReplaceToken]) -> None:
    if missing:
        rule = missing[0]
        reason = f"this needs the placeholder {rule.placeholder} in its {' or '.join(rule.where)}; own keys are kept in"
        raise Refusal(403, reason, "denied", "credential")
