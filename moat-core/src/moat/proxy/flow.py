"""One request, top to bottom, as steps that either go on or raise a Refusal. No I/O: `server/` drives it.

    Request ─▶ agreed_authority ─▶ policy ─▶ credential ─▶ Passage ─▶ (server: dial guard ─▶ forward ─▶ record)
               400 · 405 · 421     403       inject                    403 · 502 · 504

Policy comes before credentials and both before any look-up: a refused name is never resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from moat.api.endpoints import Upstream, Where
from moat.api.http import Authority, Headers, RequestHead
from moat.api.rules import ReadUsage, Rule
from moat.net.authority import AuthorityRefused, from_absolute, from_connect, from_host
from moat.net.policy import Objection
from moat.proxy.admit import LiveRun
from moat.proxy.answering import Answering, plain_wanted, whole_wanted
from moat.proxy.http1 import NO_BODY, Framing, Request, end_to_end
from moat.proxy.inject import inject
from moat.proxy.own_keys import keep_in_own_keys, without_keys
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal, closed, denied, malformed, misdirected
from moat.proxy.renderings import secrets_in
from moat.proxy.sign import SignTask, sign_task
from moat.proxy.substitute import Applied, BodyTask, captured_body, substitute
from moat.proxy.tools import tool_task
from moat.proxy.upgrade import check_read, offered
from moat.proxy.usage import usage_rules
from moat.proxy.whole import WholeTask, whole_task

Via = Literal["connect", "http", "transparent", "endpoint"]  # an endpoint's record may say "mcp"
_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override",
              "x_http_method_override", "x_http_method", "x_method_override")  # fmt: skip # gRPC clients may use `_`


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a request came in. bound: the authority of its tunnel or local address; None where the target names it.

    where: the place of an endpoint that its connection is at; None elsewhere.
    """

    via: Via
    bound: Authority | None = None
    where: Where | None = None


@lru_cache(maxsize=256)
def inside(authority: Authority) -> Arrival:
    """Return how requests come inside TLS in a tunnel to authority: one object for all, as ways are looked up by it."""
    return Arrival("connect", Authority("https", authority.host, authority.port))


@dataclass(frozen=True, slots=True)
class Passage:
    """A request that may leave. head: with credentials; its headers hold nothing of this connection's framing.

    body: what is to be done to the request's body before it leaves; whole, then answering: to the answer. None for
    nothing; an answer that has a whole may be passed on through `server/settle.py` only.
    upstream: of the endpoint that it is for, if it is for one. rules: those for its authority. injected, replaced,
    basis: as in ExchangeRecord, the last as its rule. usage: what is read from the answer. sign: how it is still to be
    signed, once its body was held. upgrade: the protocol that upstream is asked to change to.
    """

    authority: Authority
    head: RequestHead = field(repr=False)
    grants: tuple[str, ...] = ()
    answering: Answering | None = field(default=None, repr=False)
    body: BodyTask | None = field(default=None, repr=False)
    upstream: Upstream | None = None
    whole: WholeTask | None = field(default=None, repr=False)
    rules: tuple[Rule, ...] = field(default=(), repr=False)
    injected: tuple[str, ...] = ()
    replaced: int = 0
    basis: str = ""
    usage: tuple[ReadUsage, ...] = ()
    sign: SignTask | None = None
    upgrade: str = ""

    def tell(self, trail: Trail) -> None:
        """Have a record say what is spent."""
        trail.grants, trail.injected, trail.replaced = self.grants, self.injected, self.replaced
        trail.decision, trail.rule = "allow", self.basis

    def with_body(self, applied: Applied) -> Passage:
        """Return this after its body was looked at."""
        grants = tuple(dict.fromkeys((*self.grants, *applied.grants)))
        return replace(self, grants=grants, replaced=self.replaced + applied.count)

    def trailers(self, came: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the trailers of the request as they may leave."""
        return without_keys(self.rules, came) if came and self.rules else came


def judge(run: LiveRun, arrival: Arrival, request: Request, trail: Trail) -> Passage:
    """Take one request through every decision. Raises Refusal."""
    trail.introduce(request.version, request.fields, run.spent.unsaid)
    trail.ask(request.method, request.target, run.spent.unsaid)
    if arrival.bound is not None:
        trail.aim(arrival.bound)
    check_open(run)
    check_method(request)
    authority, target = _agreed(arrival, request)
    trail.aim(authority)
    path = target.partition("?")[0]
    for method in _methods(request) if run.context.policy.rules else (request.method,):
        _permit(run.request_objection(authority, method, path))
    trail.decision, trail.rule = "allow", run.basis(authority, request.method, path)
    passage = replace(_with_credentials(run, authority, target, request), basis=trail.rule, upgrade=offered(request))
    if passage.upgrade:
        check_read(passage.upgrade, _why_read(run, passage))
    return passage


def judge_connect(run: LiveRun, request: Request, trail: Trail) -> Authority:
    """Take a CONNECT through every decision that does not need what is inside. Raises Refusal."""
    trail.method, trail.host = request.method, request.target[:255]
    trail.introduce(request.version, request.fields, run.spent.unsaid)
    check_open(run)
    if request.framing.kind != "none":
        raise malformed("a CONNECT has no body")
    authority = _read(from_connect, request.target)
    trail.aim(authority)
    trail.method = "CONNECT"
    _permit(run.objection(authority))
    return authority


def check_open(run: LiveRun) -> None:
    """Raise a Refusal for a run that may send nothing yet, or no more."""
    if not run.context.is_open:
        raise closed(run.context.why_closed)


def check_method(request: Request) -> None:
    """Raise a Refusal for a method that nobody may use."""
    method = request.method.upper()  # RFC 9110 §9.1 knows upper case only; some servers are kinder
    if method == "CONNECT":
        raise Refusal(405, "no tunnel inside a tunnel", kind="method")
    if method in ("TRACE", "TRACK"):  # the second is IIS's
        raise Refusal(405, f"{method} would show the credential", kind="method")


def _agreed(arrival: Arrival, request: Request) -> tuple[Authority, str]:
    """Return the one authority that target, Host and connection agree on, and the origin-form target."""
    if arrival.bound is None:
        return _proxied(request)
    if not request.target.startswith("/"):
        if request.target == "*":
            raise malformed("OPTIONS * is for the proxy itself")
        authority, target = _absolute(request.target)
        if authority != arrival.bound:
            raise misdirected(f"this connection is for {arrival.bound}")
    else:
        target = request.target
    if "#" in target:
        raise malformed("the request target has a fragment")
    _check_host(request, arrival.bound)
    return arrival.bound, target


def _proxied(request: Request) -> tuple[Authority, str]:
    if request.target.startswith("/") or request.target == "*":
        raise Refusal(404, "this is a proxy; there is nothing here", kind="target")
    authority, target = _absolute(request.target)
    if authority.scheme == "https":
        raise malformed("https:// goes through CONNECT; set HTTPS_PROXY or https_proxy, not only HTTP_PROXY")
    _check_host(request, authority)
    return authority, target


def _check_host(request: Request, authority: Authority) -> None:
    if not request.host:
        return  # HTTP/1.0 may leave it out; we send the agreed one
    named = _read(lambda value: from_host(value, authority.scheme), request.host)
    if named != authority:
        raise misdirected(f"Host is not {authority}, which this connection is for")


def _absolute(target: str) -> tuple[Authority, str]:
    try:
        return from_absolute(target)
    except AuthorityRefused as refused:
        raise malformed(f"the request target: {refused}") from None


def _methods(request: Request) -> Iterator[str]:
    """Return every method that a server may take a request for: many frameworks let a header override it."""
    yield request.method
    for name in _OVERRIDES:
        yield from (value.strip() for value in request.fields.get(name, ()))


def _why_read(run: LiveRun, passage: Passage) -> str:
    """Return why every request to this authority must be read, "" where one is as good as another."""
    if passage.rules:
        return f"credentials are for {passage.authority.host}"
    speaks = run.has_finer_rules(passage.authority)
    return f"rules of the policy tell requests to {passage.authority} apart" if speaks else ""


def _permit(found: Objection | None) -> None:
    if found is not None:
        raise denied(found)


def _with_credentials(run: LiveRun, authority: Authority, target: str, request: Request) -> Passage:
    """Strip what is for this hop only, then inject: nothing the client lists in Connection removes a credential."""
    kept = end_to_end(request.headers, request.fields, "host", "content-length")
    head = RequestHead(request.method, authority, target, Headers(tuple(kept)))
    if not run.has_rules_at(authority.host):
        return Passage(authority, head)
    rules = run.rules_for(authority)
    of_host = rules if authority.scheme == "https" else tuple(run.rules_of_host(authority.host))
    keep_in_own_keys(of_host, head)
    has_body = request.framing not in (NO_BODY, Framing("length", 0))
    injected = inject(rules, head)
    done = substitute(rules, injected.head, has_body=has_body)
    grants, secrets = tuple(dict.fromkeys(injected.grants + done.grants)), injected.secrets + done.secrets
    run.spent.add(token for value in secrets for token in secrets_in(value))
    whole, body = whole_task(rules, head, run.spent, done.renewed), done.body
    if whole is not None and whole.capture is not None:
        body = captured_body(whole.capture, done.head, body, has_body=has_body)
    body = tool_task(rules, head, request, body, has_body=has_body)
    sign, body = sign_task(rules, head, body, has_body=has_body)
    whole = whole and replace(whole, holds=run.holds)
    body = body and replace(body, holds=run.holds)
    counts = (injected.names, done.count, "", usage_rules(rules, head))
    if not run.spent.scrub and whole is None:
        return Passage(authority, done.head, grants, None, body, None, None, of_host, *counts, sign=sign)
    answering = Answering(run.spent.scrub, bool(secrets), run.spent) if run.spent.scrub else None
    wanted = plain_wanted(whole_wanted(done.head) if secrets else done.head)
    return Passage(authority, wanted, grants, answering, body, None, whole, of_host, *counts, sign=sign)


def _read(reader: Callable[[str], Authority], text: str) -> Authority:
    try:
        return reader(text)
    except AuthorityRefused as refused:
        raise malformed(str(refused)) from None
