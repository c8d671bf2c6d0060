"""Batch APIs: one request that carries many others, which rules by method and path never see. Pure.

A rule that speaks of a path or a method of such a host, while the batch endpoint stays open, is worth a warning. The
list holds what is widely used and documented by its vendor; it cannot be complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from moat.api.http import Authority
from moat.api.runs import NetworkPolicy, NetworkRule
from moat.net.hosts import HostPattern
from moat.net.policy import request_objection

_ANY = "any"  # the label that stands for what a pattern leaves open


@dataclass(frozen=True, slots=True)
class Batch:
    """One endpoint. host: a pattern as in rules. path: what a rule would name; ask: one path that fits it."""

    host: str
    path: str
    ask: str
    what: str


BATCHES = (
    Batch("www.googleapis.com", "/batch/**", "/batch/drive/v3", "Google API batches"),
    Batch("*.googleapis.com", "/batch/**", "/batch", "Google API batches"),
    Batch("graph.microsoft.com", "/*/$batch", "/v1.0/$batch", "Microsoft Graph batches"),
    Batch("management.azure.com", "/batch", "/batch", "Azure Resource Manager batches"),
    Batch("*.dynamics.com", "/api/data/*/$batch", "/api/data/v9.2/$batch", "Dataverse batches"),
    Batch("*.sharepoint.com", "/_api/$batch", "/_api/$batch", "SharePoint batches"),
    Batch("graph.facebook.com", "/", "/", "Meta Graph batches"),
    Batch(
        "*.salesforce.com", "/services/data/*/composite/**", "/services/data/v60.0/composite", "Salesforce composites"
    ),
    Batch("*.api.mailchimp.com", "/3.0/batches", "/3.0/batches", "Mailchimp batches"),
    Batch("app.asana.com", "/api/1.0/batch", "/api/1.0/batch", "Asana batches"),
    Batch("api.openai.com", "/v1/batches", "/v1/batches", "OpenAI batches"),
    Batch("api.github.com", "/graphql", "/graphql", "GraphQL, which reads and writes everything"),
    Batch("gitlab.com", "/api/graphql", "/api/graphql", "GraphQL, which reads and writes everything"),
    Batch("api.linear.app", "/graphql", "/graphql", "GraphQL, which reads and writes everything"),
    Batch("*.myshopify.com", "/admin/api/*/graphql.json", "/admin/api/2025-01/graphql.json", "GraphQL"),
    Batch(
        "*.atlassian.net", "/gateway/api/graphql", "/gateway/api/graphql", "GraphQL, which reads and writes everything"
    ),
)


def batch_warnings(policy: NetworkPolicy) -> list[str]:
    """Return a warning for each batch endpoint that leads around a rule of policy."""
    found: list[str] = []
    for batch in BATCHES:
        for host in _hosts(policy, batch):
            line = f"deny POST {host}{batch.path}"
            found.append(
                f"rules by method or path for {host} do not see into {batch.what} at {batch.path}; "
                f"to keep them in, put before: --rule '{line}'"
            )
    return list(dict.fromkeys(found))


def _hosts(policy: NetworkPolicy, batch: Batch) -> Iterator[str]:
    """Return the hosts of batch of which a rule lets out some requests and not others, and the batches too."""
    for rule in policy.rules:
        for host in _common(rule, batch):
            authority = Authority("https", host.replace("*", _ANY), 443)
            if request_objection(policy, (), authority, "POST", batch.ask) is None and _is_narrow(policy, authority):
                yield host


def _common(rule: NetworkRule, batch: Batch) -> Iterator[str]:
    """Return the narrower of both patterns' hosts, where one covers the other."""
    named = rule.host.partition(":")[0]
    if (not rule.path and not rule.methods) or named == "*":
        return
    if named == batch.host or _covers(batch.host, named):
        yield named
    elif _covers(named, batch.host):
        yield batch.host


def _covers(pattern: str, host: str) -> bool:
    return pattern.startswith("*") and HostPattern.parse(pattern).covers_host(host.replace("*", _ANY))


@lru_cache(maxsize=64)
def _is_narrow(policy: NetworkPolicy, authority: Authority) -> bool:
    """Whether anything at all is kept in there: rules that allow everything twice are no protection to get around."""
    probes = (("DELETE", "/moat-probe"), ("GET", "/moat-probe"), *_asked(policy.rules))
    return any(request_objection(policy, (), authority, method, path) is not None for method, path in probes)


def _asked(rules: tuple[NetworkRule, ...]) -> Iterator[tuple[str, str]]:
    """Return what the rules speak of: one request each."""
    for rule in rules:
        path = rule.path.replace("/**", "/x").replace("*", "x") or "/"
        for method in rule.methods or ("GET", "POST"):
            yield method, path
