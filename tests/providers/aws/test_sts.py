"""The check and the sessions of runs through the real boto3, against a small STS on loopback, and against moto's."""

from __future__ import annotations

from pathlib import Path

import pytest
from moat.api import GrantFailed
from moat_provider_aws.role import Role
from moat_provider_aws.sts import SESSION_NAME, TAG, NoSession, assume, session_for
from support.aws import running_aws

from providers.aws.sts import running_sts

ROLE = Role("arn:aws:iam::123456789012:role/agent", "eu-west-3", 3600, "abc")

# botocore itself calls a function that Python 3.12 deprecates; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")


def test_sts_is_asked_for_exactly_this_role() -> None:
    with running_sts() as sts:
        assume(ROLE, sts.url)

    asked = {key: sts.asked[0][key] for key in sts.asked[0] if key != "Version"}
    assert asked == {
        "Action": "AssumeRole",
        "RoleArn": ROLE.arn,
        "RoleSessionName": SESSION_NAME,
        "DurationSeconds": "3600",
        "ExternalId": "abc",
    }
    assert "AKIAEXAMPLE" in sts.authorizations[0]
    assert "/eu-west-3/sts/" in sts.authorizations[0]


def test_a_denial_is_told_by_its_code() -> None:
    with (
        running_sts(denies=True) as sts,
        pytest.raises(GrantFailed, match=r"AccessDenied.*nothing was") as caught,
    ):
        assume(ROLE, sts.url)

    assert "get-caller-identity" in caught.value.hint


def test_an_unreachable_sts_is_told_with_the_way_round() -> None:
    with pytest.raises(GrantFailed, match="cannot be reached") as caught:
        assume(ROLE, "http://127.0.0.1:1")

    assert "--no-validate" in caught.value.hint


def test_a_user_without_credentials_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with running_sts() as sts, pytest.raises(GrantFailed, match="no AWS credentials"):
        assume(ROLE, sts.url)

    assert sts.asked == []


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(GrantFailed, match="no AWS profile 'nowhere'"):
        assume(Role(ROLE.arn, profile="nowhere"))


def test_a_runs_session_has_its_name_and_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_sts() as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        keys = session_for(ROLE, "run_1")

    asked = {key: sts.asked[0][key] for key in sts.asked[0] if key not in ("Version", "Action")}
    assert asked == {
        "RoleArn": ROLE.arn,
        "RoleSessionName": "moat-run_1",
        "DurationSeconds": "3600",
        "ExternalId": "abc",
        "Tags.member.1.Key": TAG,
        "Tags.member.1.Value": "run_1",
    }
    assert (keys.access_key_id, keys.expires_at.isoformat()) == ("ASIAEXAMPLE", "2031-01-01T00:00:00+00:00")
    assert "s3cr3t" not in repr(keys)


def test_a_role_that_allows_no_tags_is_assumed_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_sts(denies_tags=True) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        session_for(ROLE, "run_1")

    assert ["Tags.member.1.Key" in asked for asked in sts.asked] == [True, False]
    assert {asked["RoleSessionName"] for asked in sts.asked} == {"moat-run_1"}


def test_a_denial_to_a_run_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_sts(denies=True) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        with pytest.raises(NoSession, match="AccessDenied") as caught:
            session_for(ROLE, "run_1")

    assert (caught.value.code, caught.value.is_final) == ("AccessDenied", True)
    assert "saved" not in caught.value.problem


@pytest.mark.parametrize("code", ["Throttling", "ThrottlingException", "ServiceUnavailable"])
def test_what_passes_is_worth_another_try(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    with running_sts(denies=True) as sts:
        sts.code = code
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        with pytest.raises(NoSession, match=code) as caught:
            session_for(ROLE, "run_1")

    assert not caught.value.is_final
    assert len(sts.asked) == 1


def test_an_unreachable_sts_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    with pytest.raises(NoSession, match="cannot be reached") as caught:
        session_for(ROLE, "run_1")

    assert not caught.value.is_final
    assert "--no-validate" not in caught.value.hint


def test_keys_of_a_session_are_good_for_what_the_role_may_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_aws() as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", aws.key[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", aws.key[1])
        keys = session_for(Role(aws.role), "run_1")
        found = (keys.access_key_id, keys.secret_access_key, keys.session_token)
        arn = aws.client("sts", *found).get_caller_identity()["Arn"]
        with pytest.raises(Exception, match="AccessDenied"):
            aws.client("iam", *found).list_users()

    assert arn.endswith(":assumed-role/agent/moat-run_1")
    assert not set(found) & set(aws.key)
