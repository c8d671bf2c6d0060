"""An answer is changed as a rule says: replaced by another, or handed to a function of a plugin's. Pure.

    (head, body) ─▶ Instead: another status and body, the other fields stay
                 ─▶ Rewriter: find(name)(head, body, parameters) ─▶ (head, body), checked

What told of the old body (its length, coding, tag, digests) is gone from the head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import TypeAlias

from moat.api.http import Headers, ResponseHead
from moat.api.rules import Instead, Rewriter, RewriteResponse
from moat.proxy.http1 import Malformed, read_fields
from moat.proxy.refusal import Refusal

MARK = "X-Moat-Rewritten"  # so that nobody looks for the fault at the service
MAX_BODY_BYTES = 16 * 1024 * 1024  # of what a function returns

Function: TypeAlias = Callable[[ResponseHead, bytes, Mapping[str, str]], tuple[ResponseHead, bytes]]
Find: TypeAlias = Callable[[str], Function]

_OF_THE_BODY = ("content-encoding", "content-length", "content-range", "accept-ranges", "etag", "content-md5", "digest",
                "content-digest", "repr-digest", "trailer", "transfer-encoding", MARK)  # fmt: skip

log = logging.getLogger(__name__)


def rewritten(rule: RewriteResponse, head: ResponseHead, body: bytes, find: Find) -> tuple[ResponseHead, bytes]:
    """Return head and body as rule wants them. body: decoded; not looked at for Instead. Raises Refusal."""
    head = without_body_fields(head)
    match rule.how:
        case Instead(status, text, content_type):
            headers = head.headers.with_set("Content-Type", content_type)
            head, body = replace(head, status=status, reason=_reason(status), headers=headers), text.encode()
        case Rewriter():
            head, body = _called(rule.how, head, body, find)
    return replace(head, headers=head.headers.with_set(MARK, rule.grant or "yes")), body


def without_body_fields(head: ResponseHead) -> ResponseHead:
    """Return head without the fields that are true of the body as it came only."""
    return replace(head, headers=head.headers.without(*_OF_THE_BODY))


def _called(how: Rewriter, head: ResponseHead, body: bytes, find: Find) -> tuple[ResponseHead, bytes]:
    try:
        new, text = find(how.name)(head, body, how.parameters)
        if not isinstance(text, bytes) or len(text) > MAX_BODY_BYTES:
            raise Malformed(f"it returns no body of at most {MAX_BODY_BYTES} bytes")
        return _checked(new), text
    except Malformed as problem:
        raise _failed(how.name, str(problem)) from None
    except Exception as failure:  # whatever a plugin's function raises is a 502 of this exchange
        log.exception("a rewriter failed", extra={"rewriter": how.name})
        raise _failed(how.name, type(failure).__name__) from None


def _checked(head: ResponseHead) -> ResponseHead:
    """Return a function's head if it can be sent. Raises Malformed."""
    if not 200 <= head.status <= 599 or head.status in (204, 206, 304):
        raise Malformed(f"a body cannot have the status {head.status:d}")
    pairs = read_fields([f"{name}: {value}" for name, value in head.headers])
    return without_body_fields(ResponseHead(head.status, Headers.of(pairs), _reason(head.status)))


def _failed(name: str, problem: str) -> Refusal:
    return Refusal(502, f"the rewriter {name} of the answer failed: {problem}", "failed", "rewrite", keeps=True)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
