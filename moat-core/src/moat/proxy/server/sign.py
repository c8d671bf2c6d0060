"""Has a request signed before it leaves, of either version of HTTP: the daemon asks the provider, which has the key.

    Passage with a SignTask ─ AskSignature ─▶ daemon ─▶ provider's sign ─▶ Signature ─▶ Passage without one

Nothing is signed ahead, and no signature is kept: each is good for one request and a few minutes.
"""

from __future__ import annotations

from dataclasses import replace

from moat.proxy.admit import LiveRun
from moat.proxy.answering import Answering
from moat.proxy.flow import Passage
from moat.proxy.renderings import secrets_in
from moat.proxy.server.asks import Asks
from moat.proxy.sign import with_signature


async def signed(passage: Passage, run: LiveRun, asks: Asks) -> Passage:
    """Return passage ready to leave, signed where its rules say so. Its body was held. Raises Refusal."""
    task = passage.sign
    if task is None:
        return passage
    grant = task.rule.grant
    made = await asks.sign(grant, task.unsigned(run.context.run_id, passage.head))
    run.spent.add(token for secret in made.secrets for token in secrets_in(secret))
    grants = tuple(dict.fromkeys((*passage.grants, grant))) if made.is_spent else passage.grants
    answering = Answering(run.spent.scrub, bool(made.secrets), run.spent) if run.spent.scrub else passage.answering
    injected = (*passage.injected, *(name for name, _ in made.headers))
    ready = replace(passage, grants=grants, injected=injected, answering=answering, sign=None)
    return replace(ready, head=with_signature(passage.head, made))
