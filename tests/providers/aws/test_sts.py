"""The check through the real boto3, against a small STS on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest
from moat.api import GrantFailed
from moat_provider_aws.role import Role
from moat_provider_aws.sts import SESSION_NAME, assume

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
