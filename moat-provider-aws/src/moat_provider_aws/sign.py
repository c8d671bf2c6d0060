"""Signs a request anew, with the keys of the run's own session. botocore does the arithmetic.

    Unsigned, signed by the client with placeholders ─▶ scope, checked ─▶ AWSRequest ─▶ SigV4 ─▶ Signed

What the client signed is signed again: the same headers, the same word about the body, the same service and region.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from moat.api import Signed, Unsignable, Unsigned

from moat_provider_aws.provider import DECLARED
from moat_provider_aws.scope import PLACEHOLDER_ID, Scope, check_host, scope_of
from moat_provider_aws.sts import Keys

MAX_EXPIRES_S = 7 * 24 * 60 * 60  # what presigned URLs may last
_OF_THE_SIGNATURE = ("authorization", "x-amz-date", "x-amz-security-token", "date")
_IN_QUERY = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders",
             "X-Amz-Security-Token", "X-Amz-Signature")  # fmt: skip
_CHUNKS = "STREAMING-AWS4-"


def checked_scope(request: Unsigned) -> Scope | None:
    """Return what is to be signed for; None for a request that nobody signed. Raises Unsignable."""
    scope = scope_of(request)
    if scope is None:
        return None
    if scope.key_id != PLACEHOLDER_ID:
        raise Unsignable("the request is signed with a key of the run's own: the grant's is used instead", status=403)
    check_host(scope, request.authority)
    if (request.headers.get(DECLARED) or "").startswith(_CHUNKS):
        advice = "over https, SDKs need no such signatures: leave payload signing as it is by default"
        raise Unsignable(f"each chunk of the body is signed by itself, which moat cannot do again; {advice}")
    return scope


def signed_with(keys: Keys, scope: Scope, request: Unsigned, now: datetime) -> Signed:
    """Return request as it leaves. Raises Unsignable for a presigned URL that has expired."""
    if scope.is_query:
        return _in_query(keys, scope, request, now)
    made, auth = _request(request, scope, request.target), _auths(scope, request)[0]
    auth(_credentials(keys), scope.service, scope.region).add_auth(made)
    names = (
        "Authorization",
        "X-Amz-Date",
        "X-Amz-Security-Token",
        *(["X-Amz-Content-SHA256"] if _is_s3(scope) else []),
    )
    fields = tuple((name, str(made.headers[name])) for name in names if name in made.headers)
    return Signed(request.target, fields, ("date",) if "date" in scope.signed else (), _secrets(keys))


def _in_query(keys: Keys, scope: Scope, request: Unsigned, now: datetime) -> Signed:
    path, _, text = request.target.partition("?")
    pairs = parse_qsl(text, keep_blank_values=True)
    if len(dict(pairs)) < len(pairs):
        raise Unsignable("the query of the presigned URL says something twice")
    left_s = _left_s(dict(pairs), now)
    rest = urlencode([pair for pair in pairs if pair[0] not in _IN_QUERY])
    made, auth = _request(request, scope, f"{path}?{rest}" if rest else path), _auths(scope, request)[1]
    auth(_credentials(keys), scope.service, scope.region, expires=left_s).add_auth(made)
    parts = urlsplit(made.url)
    return Signed(f"{parts.path}?{parts.query}", (), ("x-amz-security-token",), _secrets(keys))


def _left_s(query: dict[str, str], now: datetime) -> int:
    """Return for how long a presigned URL is still good, by the clock of the host."""
    try:
        begun = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lasts_s = int(query["X-Amz-Expires"])
    except (KeyError, ValueError):
        raise Unsignable("the presigned URL does not say until when it is good") from None
    left_s = int((begun + timedelta(seconds=min(lasts_s, MAX_EXPIRES_S)) - now).total_seconds())
    if left_s <= 0:
        raise Unsignable("the presigned URL has expired", status=403)
    return min(left_s, MAX_EXPIRES_S)


def _request(request: Unsigned, scope: Scope, target: str) -> Any:
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped] # botocore has no types

    headers = [(name, value) for name, value in request.headers if name.lower() in {*scope.signed, "host", DECLARED}]
    headers = [(name, value) for name, value in headers if name.lower() not in _OF_THE_SIGNATURE]
    made = AWSRequest(request.method, f"https://{request.authority}{target}")
    for name, value in headers:
        made.headers.add_header(name, value)
    return made


def _credentials(keys: Keys) -> Any:
    from botocore.credentials import Credentials  # type: ignore[import-untyped] # botocore has no types

    return Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token or None)


def _secrets(keys: Keys) -> tuple[str, ...]:
    return (keys.session_token,) if keys.session_token else ()


def _auths(scope: Scope, request: Unsigned) -> tuple[Any, Any]:
    """Return the kinds of signer, in a header and in the query, that know the body by what was said of it."""
    from botocore import auth  # type: ignore[import-untyped] # botocore has no types

    said = request.headers.get(DECLARED) or request.body_sha256

    def payload(self: object, made: object) -> str:
        return said

    header, query = (
        (auth.S3SigV4Auth, auth.S3SigV4QueryAuth) if _is_s3(scope) else (auth.SigV4Auth, auth.SigV4QueryAuth)
    )
    presigned = {} if _is_s3(scope) else {"payload": payload}
    return type("Header", (header,), {"payload": payload}), type("Query", (query,), presigned)


def _is_s3(scope: Scope) -> bool:
    return scope.service in ("s3", "s3-object-lambda", "s3express", "s3-outposts")
