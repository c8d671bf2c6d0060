from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped] # boto3 has no types
import pytest
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped] # nor has botocore
from moat.api import Credential, Headers, Unsignable, Unsigned
from moat_provider_aws.provider import Aws
from moat_provider_aws.role import Role
from moat_provider_aws.scope import PLACEHOLDER_ID, PLACEHOLDER_KEY
from moat_provider_aws.sessions import Sessions
from moat_provider_aws.sts import Keys
from support.sigv4 import is_signed

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

ARN = "arn:aws:iam::123456789012:role/agent"
SECRET = "s3cr3t-session-key"
TOKEN = "s3cr3t/session+token=="
CREDENTIAL = Credential("aws", ARN, "--role", {"mode": "sign", "region": "eu-west-3"})
NOTHING = hashlib.sha256().hexdigest()


def an_aws() -> Aws:
    def opened(role: Role, run_id: str) -> Keys:
        assert (role.arn, run_id) == (ARN, "run_1")
        return Keys("ASIASESSION000000000", SECRET, TOKEN, datetime.now(UTC) + timedelta(hours=1))

    return Aws(sessions=Sessions(opened))


def sent_by(service: str, call: str, key: str = PLACEHOLDER_ID, **facts: Any) -> AWSRequest:
    """Return what boto3 would send."""
    caught: list[AWSRequest] = []
    names = {"aws_access_key_id": key, "aws_secret_access_key": PLACEHOLDER_KEY, "region_name": "eu-west-3"}
    client = boto3.client(service, **names)

    def take(request: AWSRequest, **_: object) -> None:
        caught.append(request)
        raise ConnectionError

    client.meta.events.register("before-send", take)
    with pytest.raises(ConnectionError):
        getattr(client, call)(**facts)
    return caught[0]


def unsigned(request: Any) -> Unsigned:
    """Return a request as the proxy asks for it. The body is a digest where its client did not say what it is."""
    parts = urlsplit(request.url)
    pairs = [(name, value.decode() if isinstance(value, bytes) else value) for name, value in request.headers.items()]
    headers = Headers((("Host", parts.netloc), *pairs))
    body = request.body.read() if hasattr(request.body, "read") else request.body or b""
    body = body.encode() if isinstance(body, str) else body
    digest = "" if "x-amz-content-sha256" in headers else hashlib.sha256(body).hexdigest()
    return Unsigned(
        "run_1", request.method, parts.netloc, f"{parts.path or '/'}?{parts.query}".rstrip("?"), headers, digest
    )


def as_it_arrives(request: Unsigned, signed: Any) -> tuple[str, dict[str, str]]:
    headers = request.headers.without(*signed.removed)
    for name, value in signed.headers:
        headers = headers.with_set(name, value)
    return f"https://{request.authority}{signed.target}", {name.lower(): value for name, value in headers}


@pytest.mark.parametrize(
    ("service", "call", "facts"),
    [
        ("s3", "get_object", {"Bucket": "bucket", "Key": "a b/ü+c//d"}),
        ("s3", "list_objects_v2", {"Bucket": "bucket", "Prefix": "a b&c=d", "Delimiter": "/"}),
        ("s3", "put_object", {"Bucket": "bucket", "Key": "x", "Body": b"hello", "Metadata": {"note": "a  b"}}),
        ("dynamodb", "put_item", {"TableName": "t", "Item": {"k": {"S": "ü"}}}),
        ("sts", "get_caller_identity", {}),
        ("lambda", "get_function", {"FunctionName": "arn:aws:lambda:eu-west-3:123456789012:function:f"}),
        ("iam", "list_roles", {"PathPrefix": "/a b/"}),
    ],
)
async def test_aws_would_accept_what_boto3_sent(service: str, call: str, facts: dict[str, Any]) -> None:
    request = unsigned(sent_by(service, call, **facts))

    signed = await an_aws().sign(request, CREDENTIAL)

    url, headers = as_it_arrives(request, signed)
    assert is_signed(SECRET, request.method, url, headers, request.body_sha256, is_s3=service == "s3")
    assert not is_signed(PLACEHOLDER_KEY, request.method, url, headers, request.body_sha256, is_s3=service == "s3")
    assert headers["x-amz-security-token"] == TOKEN
    assert PLACEHOLDER_ID not in str(headers)
    assert (signed.target, signed.is_spent, signed.secrets) == (request.target, True, (TOKEN,))


def presigned(expires_s: int = 60, **facts: Any) -> Unsigned:
    names = {"aws_access_key_id": PLACEHOLDER_ID, "aws_secret_access_key": PLACEHOLDER_KEY, "region_name": "eu-west-3"}
    from botocore.config import Config  # type: ignore[import-untyped] # nor has botocore

    client = boto3.client("s3", config=Config(signature_version="s3v4"), **names)
    wanted = {"Bucket": "bucket", "Key": "a b", **facts}
    parts = urlsplit(client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=expires_s))
    return get(parts.netloc, f"{parts.path}?{parts.query}")


def get(host: str, target: str) -> Unsigned:
    return Unsigned("run_1", "GET", host, target, Headers((("Host", host),)), NOTHING)


async def test_a_presigned_url_is_signed_for_as_long_as_it_is_good() -> None:
    request = presigned(600, ResponseContentType="text/plain; charset=utf-8")

    signed = await an_aws().sign(request, CREDENTIAL)

    url, headers = as_it_arrives(request, signed)
    assert is_signed(SECRET, "GET", url, headers, NOTHING, is_s3=True)
    assert PLACEHOLDER_ID not in url
    assert "response-content-type=text%2Fplain" in url
    (left,) = (part for part in url.split("&") if part.startswith("X-Amz-Expires="))
    assert 500 < int(left.partition("=")[2]) <= 600


async def test_an_expired_one_is_refused() -> None:
    with pytest.raises(Unsignable, match="has expired") as refusal:
        await an_aws().sign(presigned(0), CREDENTIAL)
    assert refusal.value.status == 403


async def test_a_query_that_says_something_twice_is_refused() -> None:
    request = presigned()

    with pytest.raises(Unsignable, match="twice"):
        await an_aws().sign(get(request.authority, f"{request.target}&a=1&a=2"), CREDENTIAL)


async def test_a_key_of_the_runs_own_is_kept_in() -> None:
    request = unsigned(sent_by("sts", "get_caller_identity", key="AKIAOWNKEY0000000000"))

    with pytest.raises(Unsignable, match="own") as refusal:
        await an_aws().sign(request, CREDENTIAL)
    assert refusal.value.status == 403


async def test_a_body_whose_chunks_are_signed_is_refused_and_one_with_a_checksum_behind_it_is_not() -> None:
    plain = unsigned(sent_by("s3", "put_object", Bucket="bucket", Key="x", Body=b"hello"))

    def saying(digest: str) -> Unsigned:
        headers = plain.headers.with_set("x-amz-content-sha256", digest)
        return Unsigned("run_1", "PUT", plain.authority, plain.target, headers)

    signed = await an_aws().sign(saying("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), CREDENTIAL)
    url, headers = as_it_arrives(saying("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), signed)
    assert is_signed(SECRET, "PUT", url, headers, "", is_s3=True)
    for kind in ("", "-TRAILER"):
        with pytest.raises(Unsignable, match="each chunk"):
            await an_aws().sign(saying(f"STREAMING-AWS4-HMAC-SHA256-PAYLOAD{kind}"), CREDENTIAL)


async def test_what_nobody_signed_passes_without_a_session() -> None:
    aws = Aws(sessions=Sessions(lambda role, run_id: pytest.fail("asked")))

    signed = await aws.sign(get("public.s3.amazonaws.com", "/x"), CREDENTIAL)

    assert (signed.target, signed.headers, signed.is_spent) == ("/x", (), False)
