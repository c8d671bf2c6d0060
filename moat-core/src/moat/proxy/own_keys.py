"""Does a request carry a key of the client's own, where a rule has the say about it? Pure.

A head is asked as the client sent it, before anything is injected or replaced; trailers, which nothing is injected
into, lose every field that a rule names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeGuard
from urllib.parse import parse_qsl

from moat.api.http import RequestHead
from moat.api.rules import AddHeader, OnlyPlaceholder, RemoveHeader, Rule, SetHeader
from moat.net.paths import decoded_path
from moat.proxy.admit import basic_password
from moat.proxy.inject import may_match
from moat.proxy.refusal import Refusal


def keep_in_own_keys(rules: Iterable[Rule], head: RequestHead) -> None:
    """Take a request without a key of the client's own. rules: those for head's authority. Raises Refusal."""
    ours = [rule for rule in rules if isinstance(rule, OnlyPlaceholder)]
    if not ours:
        return
    path = decoded_path(head.path)
    for rule in ours:
        # A path that servers may read in two ways is under every rule here: what is doubtful stays in.
        if (path is None or may_match(rule.match, head, path)) and not all(
            _is_fine(rule, each) for each in _in(rule, head)
        ):
            where = f"the header {rule.name}" if rule.where == "header" else f"{rule.name} in the query"
            reason = f"{where} may hold {rule.placeholder} only: own keys are kept in, the run's grant is spent instead"
            raise Refusal(403, reason, "denied", "credential")


def without_keys(rules: Iterable[Rule], trailers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return trailers without fields that rules name. rules: those for their authority, whatever else they ask for.

    A server may merge trailers into the head, and one that is a CGI takes `_` for `-`.
    """
    named = {_plain(rule.name) for rule in rules if _is_of_a_header(rule)}
    return [pair for pair in trailers if _plain(pair[0]) not in named]


def _is_of_a_header(rule: Rule) -> TypeGuard[SetHeader | AddHeader | RemoveHeader | OnlyPlaceholder]:
    is_only = isinstance(rule, OnlyPlaceholder) and rule.where == "header"
    return is_only or isinstance(rule, SetHeader | AddHeader | RemoveHeader)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _in(rule: OnlyPlaceholder, head: RequestHead) -> Iterable[str]:
    """Return every value that the request has there."""
    if rule.where == "header":
        return head.headers.get_all(rule.name)
    query = head.target.partition("?")[2].replace(";", "&")  # some servers still split there
    return [value for name, value in parse_qsl(query, keep_blank_values=True) if name.lower() == rule.name.lower()]


def _is_fine(rule: OnlyPlaceholder, value: str) -> bool:
    scheme, _, rest = value.strip().partition(" ")
    if rule.where == "header" and scheme.lower() == "basic":
        return basic_password(value.strip()) == rule.placeholder.encode()
    return rule.placeholder in (value.strip(), rest.strip())
