"""May what is open go on after its run was replaced? For upgraded connections, which make no further request. Pure.

Everything else is judged at its next request: `flow.judge`.
"""

from __future__ import annotations

from moat.proxy.admit import LiveRun
from moat.proxy.flow import Passage


def revoked(run: LiveRun, passage: Passage) -> str:
    """Return why the tunnel that passage became may not go on under run, "" if it may.

    A grant that was refreshed is still there: its name counts and not its value.
    """
    if not run.context.is_open:
        return "the run is closed"
    if passage.upstream is not None:
        is_there = any(endpoint.how.upstream == passage.upstream for endpoint in run.context.endpoints)
        return "" if is_there else "its endpoint is gone"
    if run.request_objection(passage.authority, passage.head.method, passage.head.path) is not None:
        return "the policy does not let it out any more"
    granted = {rule.grant for rule in run.rules.get(passage.authority, ())}
    return "" if granted.issuperset(passage.grants) else "a grant that was spent on it is gone"
