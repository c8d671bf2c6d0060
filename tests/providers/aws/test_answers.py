from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from moat.api import Headers, Question, Unsignable, Unsigned
from moat_provider_aws.answers import failed, granted, refusal, unsignable
from moat_provider_aws.sts import Keys, NoSession

ENDS = datetime(2031, 1, 1, 2, 0, 0, tzinfo=timezone(timedelta(hours=1)))
KEYS = Keys("ASIAEXAMPLE", "s3cr3t-key", "s3cr3t-token", ENDS)


def test_keys_are_told_as_sdks_read_them() -> None:
    reply = granted(KEYS)

    assert reply.status == 200
    assert json.loads(reply.body) == {
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": "s3cr3t-key",
        "Token": "s3cr3t-token",
        "Expiration": "2031-01-01T01:00:00Z",
    }
    assert dict(reply.headers) == {"Content-Type": "application/json", "Cache-Control": "no-store"}


def test_what_is_secret_is_named_for_the_log_and_not_shown() -> None:
    assert granted(KEYS).secrets == ("s3cr3t-key", "s3cr3t-token")
    assert "s3cr3t" not in repr(granted(KEYS)) + repr(KEYS)


@pytest.mark.parametrize(("is_final", "status"), [(True, 403), (False, 503)])
def test_a_failure_says_whether_to_ask_again(is_final: bool, status: int) -> None:
    reply = failed(NoSession("AWS refused", "look there", "AccessDenied", is_final=is_final))

    assert reply.status == status
    assert json.loads(reply.body) == {
        "code": "AccessDenied",
        "message": "moat: AWS refused; on the host: look there",
    }


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", "/role", 404), ("GET", "//", 404), ("POST", "/", 405), ("PUT", "/?a", 405)],
)
def test_other_questions_are_refused(method: str, target: str, status: int) -> None:
    reply = refusal(Question("run_1", "credentials", method, target))

    assert reply is not None
    assert reply.status == status
    assert set(json.loads(reply.body)) == {"code", "message"}


@pytest.mark.parametrize("target", ["/", "/?x=y"])
def test_a_question_for_keys_is_none_of_them(target: str) -> None:
    assert refusal(Question("run_1", "credentials", "GET", target)) is None


@pytest.mark.parametrize(
    ("headers", "host", "content_type", "body"),
    [
        ((("Content-Type", "application/x-amz-json-1.0"),), "dynamodb.eu-west-3.amazonaws.com", "application/json",
         '"message": "moat: no <reason>"'),
        ((), "b.s3.amazonaws.com", "application/xml",
         "<Error><Code>NotSignedByMoat</Code><Message>moat: no &lt;reason&gt;</Message></Error>"),
        ((), "sts.amazonaws.com", "application/xml", "<ErrorResponse><Error><Code>NotSignedByMoat</Code>"),
    ],
)  # fmt: skip
def test_why_nothing_is_signed_is_said_as_the_services_clients_read_it(
    headers: tuple[tuple[str, str], ...], host: str, content_type: str, body: str
) -> None:
    request = Unsigned("run_1", "GET", host, "/", Headers(headers))

    told = unsignable(Unsignable("no <reason>", status=403), request)

    assert (told.problem, told.status, told.content_type) == ("no <reason>", 403, content_type)
    assert body in told.body
