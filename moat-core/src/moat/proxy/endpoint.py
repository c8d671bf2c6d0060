"""A request to an endpoint of its run becomes one to the endpoint's upstream, judged like any other. No I/O.

GET /_moat/kube/api/v1/pods ─▶ the run, with the endpoint's rules instead of its own ─▶ judge ─▶ Passage
"""

from __future__ import annotations

from dataclasses import replace

from moat.api.endpoints import Endpoint
from moat.api.http import Authority, Headers
from moat.net.authority import from_host
from moat.proxy.admit import LiveRun
from moat.proxy.flow import Arrival, Passage, judge
from moat.proxy.http1 import Request
from moat.proxy.record import Trail


def judge_anywhere(run: LiveRun, arrival: Arrival, request: Request, trail: Trail) -> Passage:
    """Take a request through every decision, to an endpoint or beyond. Raises Refusal."""
    endpoint = endpoint_at(run, request.target) if arrival.bound is None else None
    if endpoint is None:
        return judge(run, arrival, request, trail)
    return judge_endpoint(run, endpoint, request, trail)


def endpoint_at(run: LiveRun, target: str) -> Endpoint | None:
    """Return the endpoint that an origin-form target is for, or None."""
    if not target.startswith("/_moat/"):
        return None
    return next((each for each in run.context.endpoints if target.startswith(each.where.prefix)), None)


def judge_endpoint(run: LiveRun, endpoint: Endpoint, request: Request, trail: Trail) -> Passage:
    """Take a request to endpoint through every decision. Raises Refusal.

    Its host counts as allowed, as those of grants do: an installed provider named it. Rules of the policy that keep it
    in still do, and the address guard comes as ever.
    """
    authority = authority_of(endpoint)
    trail.via = "endpoint"
    policy = replace(run.context.policy, allow=(*run.context.policy.allow, str(authority)))
    context = replace(run.context, rules=endpoint.how.rules, policy=policy)
    inner = replace(
        request,
        target="/" + request.target.removeprefix(endpoint.where.prefix),
        headers=Headers(request.headers.without("host").items),
        fields={name: values for name, values in request.fields.items() if name != "host"},
    )
    passage = judge(LiveRun.of(context, run.spent), Arrival("endpoint", authority), inner, trail)
    grants = (*passage.grants, endpoint.grant) if endpoint.how.upstream.client_certificate else passage.grants
    return replace(passage, grants=tuple(dict.fromkeys(filter(None, grants))), upstream=endpoint.how.upstream)


def authority_of(endpoint: Endpoint) -> Authority:
    """Return whom an endpoint leads to. Raises AuthorityRefused for an address that is none."""
    upstream = endpoint.how.upstream
    return from_host(upstream.address, "https" if upstream.tls else "http")
