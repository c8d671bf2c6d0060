"""Which requests a provider signs anew on their way out, and what of their body it must know. Pure.

    head ─▶ sign_task ─▶ SignTask ─▶ the body held, where its digest is wanted ─▶ Unsigned ─▶ (server/sign: the daemon)
                                       └─ the client's own header says it: the body passes as it comes

What the provider says is put on the head by `with_signature`, and the request goes its way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from moat.api.http import DEFAULT_PORTS, Headers, RequestHead
from moat.api.rules import Rule, Sign
from moat.api.signing import Signed, Unsigned
from moat.net.paths import decoded_path
from moat.proxy.inject import may_match
from moat.proxy.refusal import Refusal
from moat.proxy.substitute import Applied, BodyTask

_NOTHING = hashlib.sha256().hexdigest()


@dataclass(slots=True)
class Digest:
    """What is known of a body. sha256: hexadecimal; of no bytes, until there are some."""

    sha256: str = _NOTHING


@dataclass(frozen=True, slots=True)
class SignTask:
    """One request to be signed. digest: of its body as it leaves; None where the client said what its body is."""

    rule: Sign
    digest: Digest | None = None

    def unsigned(self, run_id: str, head: RequestHead) -> Unsigned:
        """Return what the provider is asked to sign. head: as it would leave."""
        is_default = head.authority.port == DEFAULT_PORTS[head.authority.scheme]
        authority = head.authority.host if is_default else str(head.authority)
        headers = Headers((("Host", authority), *head.headers.without("host").items))
        digest = "" if self.digest is None else self.digest.sha256
        return Unsigned(run_id, head.method, authority, head.target, headers, digest)


@dataclass(frozen=True, slots=True)
class DigestTask(BodyTask):
    """A body whose digest is wanted. then: what else is done to it first. limit: how much of it is held."""

    digest: Digest = field(default_factory=Digest)
    then: BodyTask | None = None
    limit: int = 0

    @property
    def limit_bytes(self) -> int:
        """How much may be held."""
        return self.limit

    def apply(self, body: bytes) -> Applied:
        """Return body as it leaves. Raises Refusal."""
        applied = Applied(body)
        if self.then is not None and len(body) > self.then.limit_bytes:
            self.then.give_up()
        elif self.then is not None:
            applied = self.then.apply(body)
        self.digest.sha256 = hashlib.sha256(applied.body).hexdigest()
        return applied

    def give_up(self) -> None:
        """Refuse a body that is too long to be signed."""
        reason = f"the body is longer than the {self.limit} bytes that can be held to be signed"
        raise Refusal(413, reason, kind="sign")


def sign_task(
    rules: Iterable[Rule], head: RequestHead, then: BodyTask | None, *, has_body: bool
) -> tuple[SignTask | None, BodyTask | None]:
    """Return how a request is signed, None for one that is not, and what is done to its body: then, or that and more.

    rules: those for head's authority. head: as the client sent it. Raises Refusal where it cannot be said.
    """
    ours = [rule for rule in rules if isinstance(rule, Sign)]
    if not ours or head.authority.scheme != "https":
        return None, then
    path = decoded_path(head.path)
    rule = next(
        (rule for rule in ours if (path is None and rule.match.paths) or may_match(rule.match, head, path)), None
    )
    if rule is None:
        return None, then
    if rule.declared and rule.declared in head.headers:
        if then is not None and then.rules:
            raise Refusal(400, "the body is signed by what the client said of it, and would be changed", kind="sign")
        return SignTask(rule), then
    digest = Digest()
    task = DigestTask((), None, digest=digest, then=then, limit=rule.limit_bytes) if has_body else then
    return SignTask(rule, digest), task


def with_signature(head: RequestHead, signed: Signed) -> RequestHead:
    """Return head as the provider has it leave."""
    headers = head.headers.without(*signed.removed)
    for name, value in signed.headers:
        headers = headers.with_set(name, value)
    return replace(head, target=signed.target, headers=headers)
