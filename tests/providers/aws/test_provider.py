from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from moat.api import Credential, Endpoint, GrantFailed, ProxyPath, Question, Reply, Respond
from moat.testing import FakeHost, ProviderContract
from moat_provider_aws.provider import Aws
from moat_provider_aws.role import Role
from moat_provider_aws.sessions import Sessions
from moat_provider_aws.sts import Keys, NoSession

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
    assert calls == [(Role(ARN, "eu-west-3", profile="dev", mode="sign"), "")]
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


@pytest.mark.parametrize(
    ("arn", "hosts"),
    [
        (ARN, ["*.amazonaws.com", "*.api.aws", "*.on.aws"]),
        ("arn:aws-cn:iam::123456789012:role/agent", ["*.amazonaws.com.cn"]),
    ],
)
async def test_requests_of_a_run_are_signed_and_it_has_placeholders(arn: str, hosts: list[str]) -> None:
    aws, _ = recording()
    credential = await aws.grant(FakeHost(options={"role": arn, "region": "eu-west-3"}))

    assert [rule.match.authority for rule in aws.rules(credential)] == hosts
    assert aws.endpoints(credential) == ()
    assert aws.container(credential).env == {
        "AWS_ACCESS_KEY_ID": "AKIAMOAT000000000000",
        "AWS_SECRET_ACCESS_KEY": "moat-placeholder-of-no-use-outside-of-this",
        "AWS_REGION": "eu-west-3",
        "AWS_DEFAULT_REGION": "eu-west-3",
    }


async def test_a_run_whose_keys_are_at_an_endpoint_finds_where_and_no_key() -> None:
    aws, _ = recording()
    credential = await aws.grant(FakeHost(options={"role": ARN, "region": "eu-west-3", "mode": "endpoint"}))

    assert list(aws.rules(credential)) == []
    assert aws.endpoints(credential) == (Endpoint(ProxyPath("/_moat/aws/"), Respond("credentials"), "aws"),)
    assert aws.container(credential).env == {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:19080/_moat/aws/",
        "AWS_REGION": "eu-west-3",
        "AWS_DEFAULT_REGION": "eu-west-3",
    }


@pytest.mark.parametrize(
    ("env", "options", "is_told"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"}, {}, True),
        ({"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"}, {"aws-profile": "dev"}, False),
        ({}, {}, False),
    ],
)
async def test_who_has_keys_in_the_shell_only_is_told_that_runs_cannot_use_them(
    env: dict[str, str], options: dict[str, str], is_told: bool
) -> None:
    aws, _ = recording()
    host = FakeHost(options={"role": ARN, **options}, env=env)

    await aws.grant(host)

    assert [line for line in host.said if "AWS_ACCESS_KEY_ID of this shell" in line] == host.said
    assert bool(host.said) is is_told
    assert "AKIAEXAMPLE" not in str(host.said)


@pytest.mark.parametrize("name", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
async def test_who_has_profiles_elsewhere_is_told_that_runs_do_not_see_them(name: str) -> None:
    aws, _ = recording()
    host = FakeHost(options={"role": ARN, "aws-profile": "dev"}, env={name: "/elsewhere"})

    await aws.grant(host)

    assert host.said == [f"note: runs get keys through ~/.aws; {name} of this shell is not kept for them"]


async def test_a_profile_is_stored_by_its_name_with_the_region_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text("[profile dev]\nregion = cn-north-1\n")
    aws, calls = recording()

    credential = await aws.grant(FakeHost(options={"profile": "dev"}))
    elsewhere = await aws.grant(FakeHost(options={"profile": "dev", "region": "eu-west-3"}))

    assert (credential.secret, credential.source) == ("profile:dev", "AWS profile dev")
    assert [rule.match.authority for rule in aws.rules(credential)] == ["*.amazonaws.com.cn"]
    assert aws.container(elsewhere).env["AWS_REGION"] == "eu-west-3"
    assert calls[0] == (Role("", "cn-north-1", profile="dev", mode="sign"), "")


async def test_a_session_policy_goes_with_the_check_and_is_kept_out_of_what_is_readable() -> None:
    aws, calls = recording()
    text = json.dumps({"Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}})
    host = FakeHost(options={"role": ARN, "session-policy": "/p.json"}, files={Path("/p.json"): text.encode()})

    credential = await aws.grant(host)
    given = await aws.accept(ARN, FakeHost(options={"session-policy": text}))

    assert json.loads(calls[0][0].policy) == json.loads(text)
    assert given.secret == credential.secret
    assert credential.source.startswith("--role with session policy ")
    assert "GetObject" not in f"{credential.metadata}{credential.source}"


def test_a_role_that_cannot_be_one_has_no_endpoint() -> None:
    with pytest.raises(GrantFailed, match="ARN of a role") as caught:
        Aws().endpoints(Credential("aws", ARN.replace("role", "user"), "the registration"))

    assert "saved" not in caught.value.problem


class Bank:
    """Opens sessions, or refuses. opened: for which role and run."""

    def __init__(self, failure: NoSession | None = None) -> None:
        self.failure = failure
        self.opened: list[tuple[Role, str]] = []

    def open(self, role: Role, run_id: str) -> Keys:
        self.opened.append((role, run_id))
        if self.failure is not None:
            raise self.failure
        return Keys("ASIAEXAMPLE", "s3cr3t-key", "s3cr3t-token", datetime.now(UTC) + timedelta(hours=1))


async def asked(bank: Bank, question: Question) -> Reply:
    credential = Credential("aws", ARN, "--role", {"region": "eu-west-3", "session_duration_s": "3600"})
    return await Aws(sessions=Sessions(bank.open)).respond(question, credential)


async def test_a_run_is_answered_with_keys_of_its_own() -> None:
    bank = Bank()

    reply = await asked(bank, Question("run_1", "credentials", "GET", "/"))

    assert json.loads(reply.body)["SecretAccessKey"] == "s3cr3t-key"
    assert bank.opened == [(Role(ARN, "eu-west-3", 3600), "run_1")]


async def test_what_is_no_question_for_keys_opens_no_session() -> None:
    bank = Bank()

    assert (await asked(bank, Question("run_1", "credentials", "PUT", "/"))).status == 405
    assert bank.opened == []


async def test_a_refusal_is_told_and_not_raised() -> None:
    bank = Bank(NoSession("AWS refused", "look", "AccessDenied", is_final=True))

    reply = await asked(bank, Question("run_1", "credentials", "GET", "/"))

    assert (reply.status, json.loads(reply.body)["code"]) == (403, "AccessDenied")
