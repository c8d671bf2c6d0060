from __future__ import annotations

import pytest
from moat.api import GrantFailed
from moat.testing import FakeHost, ProviderContract
from moat_provider_aws.provider import Aws
from moat_provider_aws.role import Role

ARN = "arn:aws:iam::123456789012:role/agent"


class TestAws(ProviderContract):
    provider = Aws(assume=lambda role, endpoint: None)
    secret = ARN


def recording() -> tuple[Aws, list[tuple[Role, str]]]:
    calls: list[tuple[Role, str]] = []
    return Aws(assume=lambda role, endpoint: calls.append((role, endpoint))), calls


async def test_the_role_is_stored_after_it_was_assumed_once() -> None:
    aws, calls = recording()
    host = FakeHost(options={"role": ARN, "region": "eu-west-3"}, env={"AWS_PROFILE": "dev"})

    credential = await aws.grant(host)

    assert (credential.secret, credential.source) == (ARN, "--role")
    assert calls == [(Role(ARN, "eu-west-3", profile="dev"), "")]
    assert credential.metadata == calls[0][0].metadata


@pytest.mark.parametrize(
    ("env", "endpoint"),
    [
        ({"AWS_ENDPOINT_URL": "http://a"}, "http://a"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_STS": "http://b"}, "http://b"),
    ],
)
async def test_another_endpoint_is_honoured(env: dict[str, str], endpoint: str) -> None:
    aws, calls = recording()

    await aws.grant(FakeHost(options={"role": ARN}, env=env))

    assert calls[0][1] == endpoint


async def test_without_validation_aws_is_not_asked() -> None:
    aws, calls = recording()

    await aws.grant(FakeHost(options={"role": ARN}, validate=False))

    assert calls == []


async def test_a_refusal_yields_no_credential() -> None:
    def refuse(role: Role, endpoint: str) -> None:
        raise GrantFailed("AWS refused")

    with pytest.raises(GrantFailed, match="AWS refused"):
        await Aws(assume=refuse).grant(FakeHost(options={"role": ARN}))


async def test_the_user_is_told_that_runs_cannot_use_it_yet() -> None:
    aws, _ = recording()
    host = FakeHost(options={"role": ARN})

    credential = await aws.grant(host)

    assert "cannot use it yet" in host.said[0]
    assert "cannot use it yet" in Aws.summary
    assert list(aws.rules(credential)) == []
