"""A request to an endpoint of its run becomes one to the endpoint's upstream, judged like any other. No I/O.

GET /_moat/kube/api/v1/pods ─▶ the run, with the endpoint's rules instead of its own ─▶ judge ─▶ Passage
CONNECT db.internal:5432    ─▶ a place ─▶ each request there, or the whole stream, is the endpoint's
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from moat.api.endpoints import Endpoint, Forward, OnHost, ProxyPath, Respond, Stream, Tcp, UnixPath, Where
from moat.api.http import Authority, Headers, RequestHead
from moat.api.rules import Rule
from moat.api.runs import RunContext
from moat.net.authority import AuthorityRefused, from_absolute, from_connect, from_host
from moat.net.paths import decoded_path
from moat.proxy.admit import LiveRun
from moat.proxy.flow import Arrival, Passage, check_open, judge, judge_connect
from moat.proxy.http1 import Request
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal, denied, malformed, misdirected
from moat.proxy.upgrade import check_read


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is for: an endpoint, and what it is asked: path and query in its own terms."""

    endpoint: Endpoint
    target: str


def judge_anywhere(run: LiveRun, arrival: Arrival, request: Request, trail: Trail) -> Passage:
    """Take a request through every decision, to an endpoint or beyond. Raises Refusal."""
    asked = asked_of(run, arrival, request)
    if asked is None:
        return judge(run, arrival, request, trail)
    return judge_endpoint(run, asked, request, trail)


def connect_anywhere(run: LiveRun, request: Request, trail: Trail) -> Authority | Tcp:
    """Take a CONNECT through every decision; return whom, or which endpoint, it is for. Raises Refusal."""
    place = _named(run, request.target, from_connect)
    if place is None:
        return judge_connect(run, request, trail)
    if request.framing.kind != "none":
        raise malformed("a CONNECT has no body")
    trail.aim(authority_of(place))
    check_open(run)
    return place


def asked_of(run: LiveRun, arrival: Arrival, request: Request) -> Asked | None:
    """Return which endpoint a request is for, None for none. Raises Refusal where one was and is not any more."""
    if arrival.where is not None:
        return _asked_at(run, arrival.where, request)
    if not run.context.endpoints or arrival.bound is not None:
        return None
    if request.target.startswith("/"):
        return _asked_below(run, request.target)
    place = _named(run, request.target, lambda target: from_absolute(target)[0])
    return None if place is None or place.tls else _asked_at(run, place, request)


def _asked_below(run: LiveRun, target: str) -> Asked | None:
    """Return which endpoint has the path of a target, and what follows in terms of its upstream."""
    for each in run.context.endpoints:
        rest = each.where.rest_of(target) if isinstance(each.where, ProxyPath) else None
        if rest is not None:
            base = "" if isinstance(each.how, Respond) else each.how.upstream.path
            asked = (base.removesuffix("/") if rest.startswith("/") else base) + rest
            return Asked(each, asked if asked.startswith("/") else f"/{asked}")
    return None


def endpoint_at(run: LiveRun, where: Where) -> Endpoint | None:
    """Return the endpoint that is there now, or None."""
    return next((each for each in run.context.endpoints if each.where == where), None)


def place_of(run: LiveRun, host: str, port: int) -> Tcp | None:
    """Return where a connection to a name and port leads, None where no endpoint is there."""
    places = (each.where for each in run.context.endpoints if isinstance(each.where, Tcp))
    return next((place for place in places if (place.name, place.port) == (host, port)), None)


def judge_endpoint(run: LiveRun, asked: Asked, request: Request, trail: Trail) -> Passage:
    """Take a request to an endpoint that forwards through every decision. Raises Refusal."""
    endpoint = asked.endpoint
    if not isinstance(endpoint.how, Forward | OnHost):
        raise Refusal(421, "this endpoint does not forward requests", kind="endpoint")
    authority = upstream_of(endpoint)
    trail.via = ingress_of(endpoint.where)
    if isinstance(endpoint.where, ProxyPath) and not _stays_below(endpoint.how.upstream.path, asked.target):
        trail.ask(request.method, asked.target, run.spent.unsaid)
        trail.aim(authority)
        raise malformed("below this endpoint a path must be one that every server reads alike, without dot segments")
    inner = replace(
        request,
        target=asked.target,
        headers=Headers(request.headers.without("host").items),
        fields={name: values for name, values in request.fields.items() if name != "host"},
    )
    passage = judge(run_at(run, endpoint), Arrival("endpoint", authority), inner, trail)
    if passage.upgrade:
        check_read(passage.upgrade, _why_read(endpoint))
    return replace(passage, grants=_grants(endpoint, passage.grants), upstream=endpoint.how.upstream)


def judge_stream(run: LiveRun, endpoint: Endpoint, trail: Trail) -> Passage:
    """Take a connection to an endpoint that streams through every decision. Raises Refusal."""
    if not isinstance(endpoint.how, Stream | OnHost):
        raise Refusal(421, "this endpoint does not stream", kind="endpoint")
    check_open(run)
    authority = upstream_of(endpoint)
    trail.protocol = "tcp"
    trail.aim(authority)
    if (found := run_at(run, endpoint).objection(authority)) is not None:
        raise denied(found)
    head = RequestHead("", authority, "")
    return Passage(authority, head, _grants(endpoint, ()), upstream=endpoint.how.upstream)


def _why_read(endpoint: Endpoint) -> str:
    """Return why every request to an endpoint must be read, beside what its rules make of it; "" where none must."""
    if isinstance(endpoint.how, Forward | OnHost) and endpoint.how.upstream.client_certificate:
        return "whatever passes has the endpoint's certificate"
    has_base = isinstance(endpoint.how, Forward | OnHost) and endpoint.how.upstream.path.strip("/")
    return "the endpoint leads below a path" if has_base else ""


def _stays_below(base: str, target: str) -> bool:
    """Whether every server reads target as below base, which is all that the endpoint's credential is meant for."""
    below = target.removeprefix(base.removesuffix("/")).partition("?")[0]
    return not base.strip("/") or decoded_path(below) is not None


def run_at(run: LiveRun, endpoint: Endpoint) -> LiveRun:
    """Return run as it is for what goes to endpoint's upstream: with its rules, and none of the run's own.

    Its host counts as allowed, as those of grants do: an installed provider named it. Rules of the policy that keep it
    in still do, and the address guard comes as ever.
    """
    rules = endpoint.how.rules if isinstance(endpoint.how, Forward) else ()
    policy = replace(run.context.policy, allow=(*run.context.policy.allow, str(upstream_of(endpoint))))
    return LiveRun.of(replace(run.context, rules=rules, policy=policy), run.spent, run.holds)


def endpoint_rules(context: RunContext) -> list[Rule]:
    """Return the rules of a run's endpoints."""
    return [rule for each in context.endpoints if isinstance(each.how, Forward) for rule in each.how.rules]


def upstream_of(endpoint: Endpoint) -> Authority:
    """Return whom an endpoint leads to. Raises AuthorityRefused for an address that is none, and for no address."""
    if isinstance(endpoint.how, Respond):
        raise AuthorityRefused("this endpoint leads nowhere")
    if isinstance(endpoint.how, OnHost):  # what it is called inside is what rules and the trace speak of
        return authority_of(endpoint.where)
    upstream = endpoint.how.upstream
    return from_host(upstream.address, "https" if upstream.tls else "http")


def ingress_of(where: Where) -> str:
    """Return what a record says of how a request came to a place."""
    return "mcp" if isinstance(where, ProxyPath) and where.prefix.startswith("/mcp/") else "endpoint"


def authority_of(where: Where) -> Authority:
    """Return what a place is called in records and in requests for it."""
    match where:
        case Tcp(name, port, tls):
            return Authority("https" if tls else "http", name, port)
        case UnixPath():
            return Authority("http", "localhost", 80)  # what HTTP clients call the other end of a unix socket
        case ProxyPath():
            return Authority("http", "127.0.0.1", 19080)


def _asked_at(run: LiveRun, where: Where, request: Request) -> Asked:
    endpoint = endpoint_at(run, where)
    if endpoint is None:
        raise Refusal(404, "there is no endpoint here any more", kind="endpoint")
    authority = authority_of(where)
    target = request.target
    if not target.startswith("/"):
        target = _read(target)[1]
    if isinstance(where, Tcp) and request.host and _host(request.host, authority.scheme) != authority:
        raise misdirected(f"this connection is for {authority}")
    return Asked(endpoint, target)


def _named(run: LiveRun, target: str, reader: Callable[[str], Authority]) -> Tcp | None:
    """Return the place that a target names, if it names one."""
    if not any(isinstance(each.where, Tcp) for each in run.context.endpoints):
        return None
    try:
        authority = reader(target)
    except AuthorityRefused:
        return None
    return place_of(run, authority.host, authority.port)


def _read(target: str) -> tuple[Authority, str]:
    try:
        return from_absolute(target)
    except AuthorityRefused as refused:
        raise malformed(f"the request target: {refused}") from None


def _host(value: str, scheme: str) -> Authority:
    try:
        return from_host(value, scheme)
    except AuthorityRefused as refused:
        raise malformed(str(refused)) from None


def _grants(endpoint: Endpoint, spent: tuple[str, ...]) -> tuple[str, ...]:
    """Return the grants that are spent: what is shown in a handshake or a prelude is spent too."""
    how = endpoint.how
    shown = not isinstance(how, Respond) and bool(how.upstream.client_certificate)
    shown = shown or (isinstance(how, Stream) and bool(how.prelude))
    grants = (*spent, endpoint.grant) if shown else spent
    return tuple(dict.fromkeys(filter(None, grants)))
