"""What a run is told of a grant that its service has revoked: rules that explain the 401 answers. Pure.

rules of a run, why grants are over ─▶ one rule for each host where such a grant is spent: what happened, what to type
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from moat.api.rules import Instead, Match, RewriteResponse, Rule, Sign


def explanations(rules: Iterable[Rule], ends: Mapping[str, str], profile: str) -> Iterator[RewriteResponse]:
    """Yield what a run needs beside its rules. ends: why a grant is over, by its name; "" for one that is not."""
    named = (rule for rule in rules if not isinstance(rule, Sign))  # which may be for any of many hosts
    for grant, authority in dict.fromkeys((rule.grant, rule.match.authority) for rule in named):
        if problem := ends.get(grant, ""):
            yield _explanation(grant, authority, profile, problem)


def _explanation(grant: str, authority: str, profile: str, problem: str) -> RewriteResponse:
    option = f"--profile {profile} " if profile else ""
    message = f"moat: {problem}; ask the user to run: moat grant {option}{grant}"
    body = json.dumps({"error": {"code": "GrantRevoked", "message": message}})
    how = Instead(401, body + "\n")
    return RewriteResponse(Match(authority), how, statuses=(401,), kinds=(), grant=grant)
