from __future__ import annotations

import gzip
import json
from pathlib import Path

import botocore  # type: ignore[import-untyped] # botocore has no types
import pytest
from moat.api import Headers, Unsignable, Unsigned
from moat_provider_aws.scope import Scope, check_host, scope_of

KEY = "AKIAMOAT000000000000"
HEADER = (
    f"AWS4-HMAC-SHA256 Credential={KEY}/20260131/eu-west-3/s3/aws4_request, SignedHeaders=host;X-Amz-Date, Signature=ab"
)
QUERY = (
    f"/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}%2F20260131%2Feu-west-3%2Fs3%2Faws4_request"
    "&X-Amz-SignedHeaders=host&X-Amz-Signature=ab"
)


def a_request(*authorization: str, target: str = "/a") -> Unsigned:
    return Unsigned(
        "run_1", "GET", "s3.amazonaws.com", target, Headers(tuple(("Authorization", each) for each in authorization))
    )


def test_the_scope_stands_in_the_header() -> None:
    assert scope_of(a_request(HEADER)) == Scope(KEY, "eu-west-3", "s3", ("host", "x-amz-date"))
    assert scope_of(a_request(HEADER.replace(", ", ","))) == scope_of(a_request(HEADER))


def test_or_in_the_query() -> None:
    assert scope_of(a_request(target=QUERY)) == Scope(KEY, "eu-west-3", "s3", ("host",), is_query=True)


def test_a_request_that_nobody_signed_has_none() -> None:
    assert scope_of(a_request(target="/a?b=c")) is None


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (a_request(HEADER, target=QUERY), "in its header and in its query"),
        (a_request(HEADER, HEADER), "more than one Authorization"),
        (a_request("AWS KEY:abc"), "version 2"),
        (a_request(target="/a?AWSAccessKeyId=x&Expires=1&Signature=y"), "version 2"),
        (a_request(HEADER.replace("HMAC", "ECDSA-P256")), "SigV4a|does not sign"),
        (a_request("AWS4-ECDSA-P256-SHA256 Credential=x"), "SigV4a"),
        (a_request("Bearer abc"), "does not sign 'Bearer'"),
        (a_request(HEADER.replace("/aws4_request", "")), "KEY/DATE/REGION/SERVICE/aws4_request"),
        (a_request("AWS4-HMAC-SHA256 nonsense"), "KEY/DATE/REGION/SERVICE/aws4_request"),
        (a_request(target=QUERY.replace("&X-Amz-Credential", "&Credential")), "KEY/DATE/REGION/SERVICE/aws4_request"),
    ],
)
def test_what_cannot_be_signed_again_is_said(request_: Unsigned, problem: str) -> None:
    with pytest.raises(Unsignable, match=problem):
        scope_of(request_)


@pytest.mark.parametrize(
    ("host", "service"),
    [
        ("s3.eu-west-3.amazonaws.com", "s3"),
        ("bucket.with.dots.s3.eu-west-3.amazonaws.com", "s3"),
        ("bucket.s3.dualstack.eu-west-3.amazonaws.com", "s3"),
        ("bucket.s3.amazonaws.com", "s3"),
        ("s3.amazonaws.com", "s3"),
        ("123.s3-control.eu-west-3.amazonaws.com", "s3"),
        ("vpce-1.s3.eu-west-3.vpce.amazonaws.com", "s3"),
        ("iam.amazonaws.com", "iam"),
        ("bedrock-runtime.eu-west-3.amazonaws.com", "bedrock"),
        ("dynamodb.eu-west-3.api.aws", "dynamodb"),
        ("abc.execute-api.eu-west-3.amazonaws.com", "execute-api"),
        ("abc.lambda-url.eu-west-3.on.aws", "lambda"),
        ("search-x.eu-west-3.es.amazonaws.com", "es"),
        ("email.eu-west-3.amazonaws.com", "ses"),
        ("runtime.sagemaker.eu-west-3.amazonaws.com", "sagemaker"),
        ("sts.eu-west-3.amazonaws.com:8443", "sts"),
    ],
)
def test_a_host_of_the_service_and_region_is_fine(host: str, service: str) -> None:
    check_host(Scope(KEY, "eu-west-3", service, ()), host)


@pytest.mark.parametrize(
    ("host", "service", "problem"),
    [
        ("s3.eu-west-1.amazonaws.com", "s3", "is in eu-west-1"),
        ("sts.eu-west-3.amazonaws.com", "s3", "is none of its hosts"),
        ("dynamodb.s3.eu-west-3.amazonaws.com", "dynamodb", "is none of its hosts"),
        ("iam.amazonaws.com", "s3", "is none of its hosts"),
    ],
)
def test_another_service_or_region_is_refused(host: str, service: str, problem: str) -> None:
    with pytest.raises(Unsignable, match=problem):
        check_host(Scope(KEY, "eu-west-3", service, ()), host)


def test_every_service_that_botocore_knows_is_one_of_its_hosts() -> None:
    found = {}
    for path in Path(botocore.__file__).parent.glob("data/*/*/service-2.json.gz"):
        metadata = json.loads(gzip.decompress(path.read_bytes()))["metadata"]
        if metadata.get("signatureVersion") in ("v4", "s3v4"):
            found[metadata["endpointPrefix"]] = metadata.get("signingName") or metadata["endpointPrefix"]
    refused = []
    for prefix, service in found.items():
        try:
            check_host(Scope(KEY, "eu-west-3", service, ()), f"{prefix}.eu-west-3.amazonaws.com")
        except Unsignable:
            refused.append((prefix, service))

    assert len(found) > 300
    assert refused == []
