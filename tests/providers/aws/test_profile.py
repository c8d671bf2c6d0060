"""Profiles of the user's own config through the real boto3: keys, SSO and a process; STS on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.credentials import SSOProvider  # type: ignore[import-untyped] # botocore has no types
from moat.api import GrantFailed
from moat_provider_aws.keys import NoSession
from moat_provider_aws.policy import checked_policy
from moat_provider_aws.profile import region_of
from moat_provider_aws.role import Role
from moat_provider_aws.sts import assume, session_for

from providers.aws.sts import FakeSts, running_sts

ARN = "arn:aws:iam::123456789012:role/agent"
START = "https://sso.example.test/start"
POLICY = checked_policy('{"Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}')

# botocore itself calls a function that Python 3.12 deprecates; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def sts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSts]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # botocore looks for the home of logins once, when it is imported.
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(tmp_path / ".aws" / "sso" / "cache"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with running_sts() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


def profile(home: Path, **settings: str) -> None:
    """Write the profile `dev`."""
    (home / ".aws").mkdir(exist_ok=True)
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (home / ".aws" / "config").write_text("\n".join(["[profile dev]", *lines, ""]))


def with_keys(home: Path, **more: str) -> None:
    profile(home, aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="s3cr3t", **more)


def with_sso(home: Path, lasts: timedelta = timedelta(hours=1), token: str = "sso-token") -> None:
    profile(home, sso_start_url=START, sso_region="eu-west-3", sso_account_id="123456789012", sso_role_name="dev")
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    ends = (datetime.now(UTC) + lasts).strftime("%Y-%m-%dT%H:%M:%SZ")
    login = {"startUrl": START, "region": "eu-west-3", "accessToken": token, "expiresAt": ends}
    (cache / f"{hashlib.sha1(START.encode()).hexdigest()}.json").write_text(json.dumps(login))  # noqa: S324 # as AWS does


def with_process(home: Path, answer: object) -> None:
    (home / "answer").write_text(answer if isinstance(answer, str) else json.dumps(answer))
    program = f"import pathlib; print(pathlib.Path({str(home / 'answer')!r}).read_text())"
    profile(home, credential_process=f"{sys.executable} -c {shlex.quote(program)}")


def own(mode: str = "sign", policy: str = "") -> Role:
    return Role("", "eu-west-3", profile="dev", mode=mode, policy=policy)


PROCESS = {"Version": 1, "AccessKeyId": "ASIAOFPROCESS", "SecretAccessKey": "s3cr3t-p", "SessionToken": "s3cr3t-t",
           "Expiration": "2031-01-01T00:00:00Z"}  # fmt: skip


@pytest.mark.parametrize("mode", ["sign", "endpoint"])
def test_a_session_of_sso_is_spent_as_it_is(sts: FakeSts, tmp_path: Path, mode: str) -> None:
    with_sso(tmp_path)

    keys = session_for(own(mode=mode), "run_1")

    assert (keys.access_key_id, keys.session_token) == ("ASIAOFSSO", "s3cr3t-of-sso")
    assert keys.expires_at == datetime(2031, 1, 1, tzinfo=UTC)
    assert sts.asked == []


@pytest.mark.parametrize("mode", ["sign", "endpoint"])
def test_what_a_process_gives_is_spent_as_it_is(sts: FakeSts, tmp_path: Path, mode: str) -> None:
    with_process(tmp_path, PROCESS)

    keys = session_for(own(mode=mode), "run_1")

    assert (keys.access_key_id, keys.secret_access_key, keys.session_token) == ("ASIAOFPROCESS", "s3cr3t-p", "s3cr3t-t")
    assert keys.expires_at == datetime(2031, 1, 1, tzinfo=UTC)


def test_keys_that_last_sign_in_the_daemon(sts: FakeSts, tmp_path: Path) -> None:
    with_keys(tmp_path)

    keys = session_for(own(mode="sign"), "run_1")

    assert (keys.access_key_id, keys.session_token) == ("AKIAEXAMPLE", "")
    assert keys.expires_at < datetime.now(UTC) + timedelta(minutes=16)  # then the profile is read again
    assert sts.asked == []


def test_keys_that_last_never_enter_a_run(sts: FakeSts, tmp_path: Path) -> None:
    with_keys(tmp_path)

    keys = session_for(own(mode="endpoint"), "run_1")

    assert (keys.access_key_id, keys.session_token) == ("ASIAEXAMPLE", "s3cr3t")
    assert [(each["Action"], each["DurationSeconds"]) for each in sts.asked] == [("GetSessionToken", "900")]


@pytest.mark.parametrize("mode", ["sign", "endpoint"])
def test_a_session_policy_makes_a_federated_session_of_a_users_keys(sts: FakeSts, tmp_path: Path, mode: str) -> None:
    with_keys(tmp_path)

    keys = session_for(own(mode=mode, policy=POLICY), "run_1")

    assert keys.access_key_id == "ASIAEXAMPLE"
    (asked,) = sts.asked
    assert (asked["Action"], asked["Name"], asked["Policy"]) == ("GetFederationToken", "moat-run_1", POLICY)
    assert asked["Tags.member.1.Value"] == "run_1"


def test_a_user_who_may_not_tag_sessions_gets_one_without(sts: FakeSts, tmp_path: Path) -> None:
    with_keys(tmp_path)
    sts.denies_tags = True

    session_for(own(policy=POLICY), "run_1")

    assert ["Tags.member.1.Key" in asked for asked in sts.asked] == [True, False]
    assert {asked["Policy"] for asked in sts.asked} == {POLICY}


@pytest.mark.parametrize("has", [with_sso, lambda home: with_process(home, PROCESS)], ids=["sso", "process"])
def test_a_session_policy_is_refused_where_sts_can_put_none(sts: FakeSts, tmp_path: Path, has: object) -> None:
    assert callable(has)
    has(tmp_path)

    with pytest.raises(NoSession, match="on which STS puts no session policy") as caught:
        session_for(own(policy=POLICY), "run_1")

    assert caught.value.is_final
    assert "moat grant aws --role ARN --aws-profile dev" in caught.value.hint


def test_a_role_is_assumed_with_a_profile_of_sso_and_under_the_session_policy(sts: FakeSts, tmp_path: Path) -> None:
    with_sso(tmp_path)

    session_for(Role(ARN, "eu-west-3", profile="dev", policy=POLICY), "run_1")

    assert [(each["Action"], each["RoleArn"], each["Policy"]) for each in sts.asked] == [("AssumeRole", ARN, POLICY)]
    assert "Credential=ASIAOFSSO/" in sts.authorizations[0]


@pytest.mark.parametrize("role", [own(), Role(ARN, profile="dev")], ids=["alone", "with a role"])
@pytest.mark.parametrize(
    ("lasts", "token"), [(timedelta(hours=-1), "sso-token"), (timedelta(hours=1), "revoked")], ids=["expired", "ended"]
)
def test_an_sso_session_that_is_over_is_told_with_the_command_that_begins_one(
    sts: FakeSts, tmp_path: Path, role: Role, lasts: timedelta, token: str
) -> None:
    with_sso(tmp_path, lasts, token)

    with pytest.raises(GrantFailed, match="the SSO session of the AWS profile dev has expired, or there is") as caught:
        assume(role, sts.url)

    assert caught.value.problem.endswith("; nothing was saved")
    assert caught.value.hint == "run: aws sso login --profile dev"


def test_a_user_who_never_logged_in_is_told_the_same(sts: FakeSts, tmp_path: Path) -> None:
    profile(tmp_path, sso_start_url=START, sso_region="eu-west-3", sso_account_id="123456789012", sso_role_name="dev")

    with pytest.raises(NoSession, match="or there is none") as caught:
        session_for(own(), "run_1")

    assert caught.value.hint == "run: aws sso login --profile dev"


@pytest.mark.parametrize(
    "answer", ["nothing", {"Version": 1}, {**PROCESS, "Version": 2}, {**PROCESS, "Expiration": "x"}]
)
def test_a_process_that_gives_none_is_told_without_what_it_said(sts: FakeSts, tmp_path: Path, answer: object) -> None:
    with_process(tmp_path, answer)

    with pytest.raises(NoSession, match=r"the AWS profile dev gave no credentials \(\w+\)") as caught:
        session_for(own(), "run_1")

    assert caught.value.hint == "run: aws sts get-caller-identity --profile dev"
    assert "s3cr3t" not in caught.value.problem


def test_a_process_that_is_not_there_is_told(sts: FakeSts, tmp_path: Path) -> None:
    profile(tmp_path, credential_process="/nowhere/at/all")

    with pytest.raises(NoSession, match="the AWS profile dev gave no credentials"):
        session_for(own(), "run_1")


def test_a_profile_without_credentials_is_told(sts: FakeSts, tmp_path: Path) -> None:
    profile(tmp_path, region="eu-west-3")

    with pytest.raises(NoSession, match="you have no AWS credentials in the profile dev") as caught:
        session_for(own(), "run_1")

    assert caught.value.hint == "run: aws configure --profile dev"


def test_keys_that_aws_does_not_know_are_found_out_by_the_grant(sts: FakeSts, tmp_path: Path) -> None:
    with_keys(tmp_path)
    assume(own(mode="sign"), sts.url)
    sts.secrets.clear()

    with pytest.raises(GrantFailed, match=r"refused the AWS profile dev a session \(SignatureDoesNotMatch\)"):
        assume(own(mode="sign"), sts.url)

    assert {each["Action"] for each in sts.asked} == {"GetCallerIdentity"}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("ExpiredToken", "the session of the AWS profile dev has expired"),
        ("MalformedPolicyDocument", "AWS refused the session policy"),
        ("PackedPolicyTooLarge", "AWS refused the session policy"),
    ],
)
def test_what_aws_says_of_session_and_policy_is_told_apart(
    sts: FakeSts, tmp_path: Path, code: str, problem: str
) -> None:
    with_keys(tmp_path)
    sts.denies, sts.code = True, code

    with pytest.raises(NoSession, match=problem) as caught:
        session_for(own(policy=POLICY), "run_1")

    assert caught.value.is_final
    assert len(sts.asked) == 1


def test_a_profile_that_asks_for_a_code_is_refused_at_once(sts: FakeSts, tmp_path: Path) -> None:
    with_keys(tmp_path, role_arn=ARN, mfa_serial="arn:aws:iam::123456789012:mfa/me", source_profile="dev")

    with pytest.raises(NoSession, match="asks for an MFA code, and nobody can be asked"):
        session_for(own(), "run_1")


def test_a_profiles_region_is_read_and_a_profile_that_is_none_is_told(sts: FakeSts, tmp_path: Path) -> None:
    with_keys(tmp_path, region="eu-west-3")

    assert region_of("dev") == "eu-west-3"
    with_keys(tmp_path)
    assert region_of("dev") == ""
    with pytest.raises(NoSession, match="there is no AWS profile 'prod'") as caught:
        region_of("prod")
    assert caught.value.hint == "run: aws configure list-profiles"
