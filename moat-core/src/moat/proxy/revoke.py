"""May what is open go on after its run was replaced? Pure.

For what may go on long without a further request: uploads and answers of either version of HTTP, upgraded connections,
streams of bytes. Everything else is judged at its next request: `flow.judge`.
"""

from __future__ import annotations

from moat.proxy.admit import LiveRun
from moat.proxy.endpoint import run_at
from moat.proxy.flow import Passage

POLICY = "the policy does not let it out any more"


def revoked(run: LiveRun, passage: Passage) -> str:
    """Return why what passage became may not go on under run, "" if it may.

    A grant that was refreshed is still there: its name counts and not its value.
    """
    if not run.context.is_open:
        return "the run is closed"
    if passage.upstream is not None:
        return _revoked_at_endpoint(run, passage)
    if run.request_objection(passage.authority, passage.head.method, passage.head.path) is not None:
        return POLICY
    granted = {rule.grant for rule in run.rules_for(passage.authority)}
    return "" if granted.issuperset(passage.grants) else "a grant that was spent on it is gone"


def _revoked_at_endpoint(run: LiveRun, passage: Passage) -> str:
    """Ask the endpoint that it went to, wherever that is now: another certificate or address is another upstream."""
    found = (each for each in run.context.endpoints if getattr(each.how, "upstream", None) == passage.upstream)
    endpoint = next(found, None)
    if endpoint is None:
        return "its endpoint is gone"
    there, head = run_at(run, endpoint), passage.head
    is_stream = not head.method
    objection = (
        there.objection(passage.authority)
        if is_stream
        else there.request_objection(passage.authority, head.method, head.path)
    )
    if objection is not None:
        return POLICY
    granted = {endpoint.grant, *(rule.grant for rule in there.context.rules)}
    return "" if granted.issuperset(passage.grants) else "a grant that was spent on it is gone"
