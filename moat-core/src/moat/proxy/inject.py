"""Rules and a request head in, a head with credentials out. Pure; the one place where a secret meets a request.

For the exact authority of a rule and on https only. A path that servers may read in two ways (an encoded slash, dot
segments, a backslash) matches no rule that asks for a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from moat.api.http import Authority, Headers, RequestHead
from moat.api.rules import AddHeader, Match, RemoveHeader, Rule, SetHeader
from moat.net.authority import from_host
from moat.net.paths import covers, decoded_path

# What frames or routes a request belongs to the proxy; a rule that names it does nothing.
NOT_FOR_RULES = frozenset(("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"))


@dataclass(frozen=True, slots=True)
class Injected:
    """A head as it leaves, the grants that were spent on it, each once, and the values that were secret.

    names: of the fields that were set or added.
    """

    head: RequestHead = field(repr=False)
    grants: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    names: tuple[str, ...] = ()


def by_authority(rules: Iterable[Rule]) -> Mapping[Authority, tuple[Rule, ...]]:
    """Return rules by the authority they are for. Raises AuthorityRefused for a Match that names none."""
    found: dict[Authority, tuple[Rule, ...]] = {}
    for rule in rules:
        authority = from_host(rule.match.authority, "https")
        found[authority] = (*found.get(authority, ()), rule)
    return found


def inject(rules: Iterable[Rule], head: RequestHead) -> Injected:
    """Return head with rules applied. rules: those for head's authority (`by_authority`).

    For one header name, the first rule that sets it wins, those with `when_header` before those without: exactly one
    credential leaves, and the grants name the one that did.
    """
    if head.authority.scheme != "https":
        return Injected(head)
    path = decoded_path(head.path)
    ours = [rule for rule in rules if isinstance(rule, SetHeader | AddHeader | RemoveHeader)]
    matching = [rule for rule in ours if rule.name.lower() not in NOT_FOR_RULES and matches(rule.match, head, path)]
    headers = head.headers.without(*(rule.name for rule in matching if isinstance(rule, RemoveHeader)))
    spent: list[SetHeader | AddHeader] = []
    for setter in _chosen(matching):
        headers = headers.with_set(setter.name, setter.value)
        spent.append(setter)
    for rule in matching:
        if isinstance(rule, AddHeader) and not _has(headers, rule):
            headers = headers.with_added(rule.name, rule.value)
            spent.append(rule)
    grants = dict.fromkeys(rule.grant for rule in spent if rule.grant)
    secrets = tuple(rule.value for rule in spent if rule.is_secret)
    names = tuple(dict.fromkeys(rule.name for rule in spent))
    return Injected(head.with_headers(headers), tuple(grants), secrets, names)


def matches(match: Match, head: RequestHead, path: str | None) -> bool:
    """Whether match is for head, its authority aside, as every server reads it: for rules that give something.

    path: of `decoded_path`; None matches no pattern.
    """
    if not _is_asked_alike(match, head):
        return False
    return not match.paths or (path is not None and any(covers(text, path) for text in match.paths))


def may_match(match: Match, head: RequestHead, path: str | None) -> bool:
    """Whether some server may read head as one that match is for: for rules that keep something in."""
    if not _is_asked_alike(match, head):
        return False
    return not match.paths or path is None or any(covers(text, path) is not False for text in match.paths)


def _is_asked_alike(match: Match, head: RequestHead) -> bool:
    """Whether match is for head, authority and path aside."""
    if match.methods and head.method not in match.methods:
        return False
    if match.when_header and match.when_header not in head.headers:
        return False
    return not (match.unless_header and match.unless_header in head.headers)


def _has(headers: Headers, rule: AddHeader) -> bool:
    """Whether a list of values (RFC 9110 §5.6.1) names the rule's already."""
    return any(rule.value in map(str.strip, value.split(",")) for value in headers.get_all(rule.name))


def _chosen(matching: Iterable[Rule]) -> Iterable[SetHeader]:
    """Return one rule per header name: the first that the client chose by a header, else the first."""
    chosen: dict[str, SetHeader] = {}
    for rule in matching:
        if isinstance(rule, SetHeader):
            known = chosen.setdefault(rule.name.lower(), rule)
            if rule.match.when_header and not known.match.when_header:
                chosen[rule.name.lower()] = rule
    return chosen.values()
