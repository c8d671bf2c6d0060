"""Token endpoints: is this the request that renews the grant, and what did it bring? Pure.

    request's body ─▶ demanded ─▶ fine, or 403: a login of the client's own must not replace the grant
    answer's body ─▶ caught ─▶ Caught(tokens, …, body with placeholders), or 502

What is passed on is written anew from what was read: two readers of one body cannot come to different tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

from moat.api.http import Headers, ResponseHead
from moat.api.rules import CaptureToken
from moat.proxy.refusal import Refusal

Fields: TypeAlias = dict[str, Any]  # a JSON object, or a form

MAX_TOKEN_CHARS = 16_384
_TELLING = frozenset(("accesstoken", "refreshtoken", "idtoken"))  # RFC 6749 §5.1 and OpenID, however spelled
_MAX_DEPTH = 64
_MAX_SECONDS = 10**9  # thirty years
_FORM = "application/x-www-form-urlencoded"
_ORDINARY = frozenset(("", "application/json", "application/octet-stream", "application/xml", "text/html", "text/plain",
                       "text/xml", _FORM))  # fmt: skip
_UTF_8 = frozenset(f"charset={name}" for name in ("utf-8", '"utf-8"', "utf8", "us-ascii"))


@dataclass(frozen=True, slots=True)
class Caught:
    """What an answer brought. tokens: by field; empty for one without any (an error, say). body: for the client."""

    body: bytes = field(repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    expires_in: int | None = None


def demanded(rule: CaptureToken, headers: Headers, body: bytes) -> None:
    """Take the body of a request to a token endpoint, as the client wrote it. Raises Refusal."""
    if not rule.request:
        return
    found = _read(kind_of(headers), body) or {}
    if _is_doubtful(headers) or any(found.get(name) != value for name, value in rule.request.items()):
        raise not_renewing(rule)


def not_renewing(rule: CaptureToken) -> Refusal:
    """Return the 403 for a request to the token endpoint that does not spend the grant's own placeholder."""
    reason = (
        f"here only the grant {rule.grant} is renewed, by its placeholder and no other login; "
        f"to sign in anew, run outside: moat grant {rule.grant}"
    )
    return Refusal(403, reason, "denied", "credential")


def caught(rule: CaptureToken, head: ResponseHead, body: bytes) -> Caught:
    """Return what an answer brought, and what the client gets instead. Raises Refusal."""
    kind = kind_of(head.headers)
    found = _read(kind, body)
    if found is None:
        raise unsearchable(rule, head.headers)
    tokens = {name: _taken(rule, found, name) for name in rule.tokens if _holder(found, name) is not None}
    if tokens and head.status >= 400:
        raise uncaught(rule, f"tokens came with the status {head.status}")
    if left := next(_telling(found, set(rule.tokens.values()), frozenset(rule.shown)), ""):
        raise uncaught(rule, f"the answer has a token in {left[:40]!r}, which the rule does not name")
    return Caught(_written(kind, found), tokens, _seconds(found.get("expires_in")))


def is_readable(headers: Headers) -> bool:
    """Whether tokens can be found in a body of this kind."""
    kind = kind_of(headers)
    return _is_json(kind) or kind == _FORM


def kind_of(headers: Headers) -> str:
    """Return the media type, lower case, without parameters."""
    return (headers.get("content-type") or "").partition(";")[0].strip().lower()


def uncaught(rule: CaptureToken, problem: str) -> Refusal:
    """Return the 502 for an answer whose tokens cannot be kept."""
    return Refusal(502, f"the tokens of the grant {rule.grant} were not passed on: {problem}", "failed", "capture")


def unsearchable(rule: CaptureToken, headers: Headers) -> Refusal:
    """Return the 502 for an answer of another kind, which is quoted only where it cannot be what was sent upstream."""
    kind = kind_of(headers)
    of_kind = f"of the kind {kind!r}" if kind in _ORDINARY else "of an unusual kind"
    return uncaught(rule, f"an answer {of_kind} cannot be searched for tokens")


def _is_doubtful(headers: Headers) -> bool:
    """Whether another reader may take the body for another kind, or for other letters: in UTF-7, ASCII hides quotes."""
    kinds = headers.get_all("content-type")
    parameters = [part.strip().lower() for kind in kinds for part in kind.split(";")[1:]]
    return len(kinds) > 1 or any("charset" in part and part not in _UTF_8 for part in parameters)


def _is_json(kind: str) -> bool:
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _read(kind: str, body: bytes) -> Fields | None:
    """Return the fields of a body, None for one that is no object or form, or that names a field twice."""
    try:
        if kind == _FORM:
            return _once(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body)))
        found = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_once) if _is_json(kind) else None
        return found if isinstance(found, dict) and _depth_is_fine(found) else None
    except (ValueError, RecursionError):
        return None


def _written(kind: str, found: Fields) -> bytes:
    return (urlencode(found) if kind == _FORM else json.dumps(found)).encode()


def _once(pairs: list[tuple[str, Any]]) -> Fields:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field twice")
    return found


def _taken(rule: CaptureToken, found: Fields, name: str) -> str:
    """Return a token, with its placeholder left in its place. Raises Refusal."""
    holder = _holder(found, name)
    last = name.rpartition(".")[2]
    value = holder[last] if holder is not None else None
    if holder is None or not isinstance(value, str) or not 0 < len(value) <= MAX_TOKEN_CHARS:
        raise uncaught(rule, f"{name} is no token")
    if not value.isascii() or not value.isprintable():
        raise uncaught(rule, f"{name} holds what cannot stand in a header")
    holder[last] = rule.tokens[name]
    return value


def _holder(found: Fields, name: str) -> Fields | None:
    """Return the object in which name, with its dots, stands; None where it does not."""
    *outer, last = name.split(".")
    for part in outer:
        inner = found.get(part)
        if not isinstance(inner, dict):
            return None
        found = inner
    return found if found.get(last) is not None else None  # "refresh_token": null is none


def _telling(value: Any, placeholders: set[str], shown: frozenset[str]) -> Iterator[str]:
    """Yield the fields, anywhere, that look like tokens by their names and hold something else than a placeholder."""
    if isinstance(value, list):
        for each in value:
            yield from _telling(each, placeholders, shown)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in shown:
                continue
            is_named = name.lower().replace("_", "").replace("-", "") in _TELLING
            if is_named and each not in (None, "") and not (isinstance(each, str) and each in placeholders):
                yield name
            yield from _telling(each, placeholders, shown)


def _depth_is_fine(value: Any, depth: int = 0) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth < _MAX_DEPTH and all(_depth_is_fine(each, depth + 1) for each in inner)


def _seconds(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MAX_SECONDS:
        return None
    return int(value)
