"""What the SDKs of a run are told: keys or an error, as container credentials are; why something is not signed. Pure.

GET /_moat/aws/ ─▶ 200 {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}  or  4xx, 5xx {"code", "message"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from xml.sax.saxutils import escape

from moat.api import Question, Reply, Unsignable, Unsigned

from moat_provider_aws.sts import Keys, NoSession

_CODE = "NotSignedByMoat"
_HEADERS = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))


def refusal(question: Question) -> Reply | None:
    """Return the answer to what is no question for credentials, None for one that is."""
    if question.target.partition("?")[0] != "/":
        return _error(404, "NotFound", "there is nothing but credentials here, at the path's root")
    if question.method not in ("GET", "HEAD"):
        return _error(405, "MethodNotAllowed", "ask for credentials with GET")
    return None


def granted(keys: Keys) -> Reply:
    """Return keys as SDKs read them. What is secret of them is named, so that no log shows it."""
    fields = {
        "AccessKeyId": keys.access_key_id,
        "SecretAccessKey": keys.secret_access_key,
        "Token": keys.session_token,
        "Expiration": keys.expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return _reply(200, fields, (keys.secret_access_key, keys.session_token))


def failed(failure: NoSession) -> Reply:
    """Return why there are none. 403 where asking again is of no use, so that SDKs do not; 503 else."""
    message = f"moat: {failure.problem}; on the host: {failure.hint}"
    return _error(403 if failure.is_final else 503, failure.code, message)


def unsignable(refusal: Unsignable, request: Unsigned) -> Unsignable:
    """Return a refusal in the form in which clients of the request's service read errors: JSON, or XML as most have."""
    message = f"moat: {refusal.problem}"
    if "json" in (request.headers.get("content-type") or ""):
        body = json.dumps({"__type": _CODE, "code": _CODE, "message": message, "Message": message})
        return Unsignable(refusal.problem, status=refusal.status, content_type="application/json", body=body)
    fault = f"<Code>{_CODE}</Code><Message>{escape(message)}</Message>"
    inner = f"<Error>{fault}</Error>"
    is_s3 = ".s3." in f".{request.authority}" or "x-amz-content-sha256" in request.headers
    body = inner if is_s3 else f"<ErrorResponse>{inner}</ErrorResponse>"
    return Unsignable(refusal.problem, status=refusal.status, content_type="application/xml", body=body)


def _error(status: int, code: str, message: str) -> Reply:
    return _reply(status, {"code": code, "message": message})


def _reply(status: int, fields: Mapping[str, str], secrets: tuple[str, ...] = ()) -> Reply:
    return Reply(status, _HEADERS, json.dumps(fields).encode(), secrets)
