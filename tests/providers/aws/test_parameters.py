"""Parameters as secrets, read by the real boto3 from moto's Systems Manager, which checks signatures and policies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api import SecretFailed
from moat.testing import FakeHost
from moat_provider_aws.parameters import Parameter, Parameters, parse_parameter, read_parameter
from support.aws import PARAMETER, REGION, Aws, running_aws

# botocore itself calls a function that Python 3.12 deprecates; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_REGION", "AWS_DEFAULT_REGION",
                 "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with running_aws() as aws:
        yield aws


@pytest.mark.parametrize(
    ("reference", "parameter"),
    [
        ("/prod/password", Parameter("/prod/password")),
        ("/prod/password?", Parameter("/prod/password")),
        ("name:3?region=us-gov-west-1", Parameter("name:3", "us-gov-west-1")),
        ("/x?profile=my%2Fdev&region=eu-west-3", Parameter("/x", "eu-west-3", "my/dev")),
        ("arn:aws:ssm:eu-west-3:123456789012:parameter/x", Parameter("arn:aws:ssm:eu-west-3:123456789012:parameter/x")),
    ],
)
def test_a_reference_is_a_name_and_perhaps_region_and_profile(reference: str, parameter: Parameter) -> None:
    assert parse_parameter(reference) == parameter


@pytest.mark.parametrize(
    "reference",
    ["", "?region=eu-west-3", "/a b", "/a?regoin=eu-west-3", "/a?region", "/a?region=mars", "/a?profile=",
     "/a?profile=my+dev", "/a?region=eu-west-3&region=eu-west-1", "/a#b"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(SecretFailed) as caught:
        parse_parameter(reference)
    assert "ssm:///prod/password?region=eu-west-3" in caught.value.hint


def test_what_will_be_done_is_told_whole() -> None:
    assert Parameters().describe("/x") == "read the AWS parameter /x with your AWS credentials"
    assert Parameters().describe("/x?region=eu-west-3&profile=dev") == (
        "read the AWS parameter /x in eu-west-3 with your AWS profile dev"
    )


async def test_a_secure_string_is_read_decrypted_with_the_users_own_credentials(aws: Aws, tmp_path: Path) -> None:
    aws.write_profile(tmp_path)

    assert await Parameters().fetch(f"{PARAMETER}?region={REGION}", FakeHost()) == "s3cr3t-of-ssm"


@pytest.mark.parametrize(
    ("asked", "problem", "hint"),
    [
        (Parameter("/gone", REGION), "there is no AWS parameter /gone there", "describe-parameters --region"),
        (Parameter(PARAMETER), "no AWS region is set", "add ?region="),
        (Parameter(PARAMETER, REGION, "nobody"), "there is no AWS profile nobody", "list-profiles"),
        (
            Parameter(PARAMETER, REGION, "stranger"),
            "AWS refused to give the parameter",
            "get-caller-identity --profile",
        ),
        (Parameter(PARAMETER, REGION, "empty"), "you have no AWS credentials", "aws configure --profile empty"),
        (Parameter(PARAMETER, REGION, "far"), "cannot be reached", "network"),
        (Parameter(PARAMETER, REGION, "sso"), "your AWS session has ended", "aws sso login --profile sso"),
    ],
)
def test_what_aws_refuses_is_told_with_what_to_do(
    aws: Aws, tmp_path: Path, asked: Parameter, problem: str, hint: str
) -> None:
    aws.write_profile(tmp_path)
    keys = "aws_access_key_id = AKIASTRANGER\naws_secret_access_key = s3cr3t\n"
    sso = "sso_session = s\nsso_account_id = 1\nsso_role_name = r\n"
    with (tmp_path / ".aws" / "config").open("a") as file:
        file.write(f"[profile stranger]\nendpoint_url = {aws.url}\n{keys}[profile empty]\nregion = {REGION}\n"
                   f"[profile far]\nendpoint_url = http://127.0.0.1:1\n{keys}[profile sso]\n{sso}"
                   f"[sso-session s]\nsso_start_url = http://127.0.0.1:1/\nsso_region = {REGION}\n")  # fmt: skip
    (tmp_path / ".aws" / "credentials").rename(tmp_path / "kept")
    if asked.profile == "" and asked.region:
        (tmp_path / "kept").rename(tmp_path / ".aws" / "credentials")

    with pytest.raises(SecretFailed) as caught:
        read_parameter(asked)

    assert problem in caught.value.problem
    assert hint in caught.value.hint
    assert "s3cr3t" not in caught.value.problem + caught.value.hint
