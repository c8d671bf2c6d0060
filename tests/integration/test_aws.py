"""AWS in sealed runs: the real daemon and boto3, STS and S3 that check every signature.

~/.aws of the host ─▶ daemon ─ AssumeRole ─▶ STS ─▶ 127.0.0.1:19080/_moat/aws/ ─▶ boto3 inside ─▶ proxy ─▶ S3
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped] # botocore has no types
from moat.api.errors import UsageError
from moat.daemon.client import DaemonClient
from moat.daemon.extras import AwsConfig
from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from support.aws import BUCKET, PARAMETER, REGION, Aws, running_aws
from support.inside import copy_distribution
from support.installation import Installation, installation
from support.living import a_sealed_run, ended_after

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    # botocore itself calls a function that Python 3.12 deprecates; nothing of ours.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]
PROGRAM = f"""
import json, os, boto3
from botocore.config import Config
session = boto3.Session()
s3 = session.client("s3", config=Config(s3={{"addressing_style": "path"}}))
s3.create_bucket(Bucket="{BUCKET}", CreateBucketConfiguration={{"LocationConstraint": "{REGION}"}})
s3.put_object(Bucket="{BUCKET}", Key="from-inside", Body=b"hello")
keys = session.get_credentials()
print(json.dumps({{
    "body": s3.get_object(Bucket="{BUCKET}", Key="from-inside")["Body"].read().decode(),
    "how": keys.method,
    "keys": [keys.access_key, keys.secret_key, keys.token],
    "region": session.region_name,
    "environment": sorted(name for name in os.environ if name.startswith("AWS_")),
}}))
"""
ASK = "curl -s --noproxy '*' -m 20 -w ' %{http_code}\\n' http://127.0.0.1:19080/_moat/aws/"
ROLE = "arn:aws:iam::123456789012:role/x"


@pytest.fixture
def aws() -> Iterator[Aws]:
    with running_aws() as running:
        yield running


@pytest.fixture
def made(aws: Aws) -> Iterator[Installation]:
    with installation() as made:
        aws.serve(made)
        yield made


def session_name(aws: Aws, keys: list[str]) -> str:
    """Return the last part of who has these keys, as STS knows them."""
    arn: str = aws.client("sts", *keys).get_caller_identity()["Arn"]
    assert "assumed-role/agent/" in arn
    return arn.rpartition("/")[2]


def test_boto3_inside_gets_the_runs_own_session_and_spends_it(aws: Aws, made: Installation) -> None:
    workspace = made.file("work/program.py", PROGRAM).parent
    copy_distribution("boto3", workspace / "lib", set())
    said = made.ok("grant", "aws", "--role", aws.role, "--region", REGION, "--mode", "endpoint")
    flags = ["--runtime", "bubblewrap", "--grant", "aws", "--policy", "strict", "--allow-host", "*.amazonaws.com"]
    flags += ["--env", "PYTHONPATH=/workspace/lib"]

    found = json.loads(made.ok("run", str(workspace), *flags, "--", "python3", "program.py"))

    assert said == "aws granted from --role; spent on its endpoint inside of runs\n"
    assert (found["body"], found["how"], found["region"]) == ("hello", "container-role", REGION)
    trace = made.ok("trace", "--json")
    (run_id,) = {each["run_id"] for each in json.loads(trace)}
    assert session_name(aws, found["keys"]) == f"moat-{run_id}"
    assert not set(found["keys"]) & set(aws.key)
    assert not {name for name in found["environment"] if "KEY" in name or "TOKEN" in name}
    assert "/_moat/aws/" in trace
    written = b"".join(path.read_bytes() for path in (made.home / ".moat").rglob("*") if path.is_file())
    assert [secret for secret in (*found["keys"][1:], *aws.key) if secret.encode() in written] == []


def test_a_refusal_of_sts_is_told_inside_without_what_the_host_has(aws: Aws, made: Installation) -> None:
    made.ok("grant", "aws", "--role", aws.role, "--mode", "endpoint")
    aws.key = (aws.key[0], "wrong")
    aws.write_profile(made.home)
    workspace = made.file("work/.made", "").parent

    said = made.ok("run", str(workspace), "--runtime", "bubblewrap", "--grant", "aws", "--", "sh", "-c", ASK)

    body, _, status = said.strip().rpartition(" ")
    error = json.loads(body)
    assert status == "403"
    assert error["code"] == "SignatureDoesNotMatch"
    assert error["message"].startswith("moat: AWS refused to let you assume the role (SignatureDoesNotMatch)")
    assert aws.key[0] not in body


def test_a_parameter_is_a_secret_of_a_run_once_the_user_agrees(made: Installation) -> None:
    secrets = {"PASSWORD": f"ssm://{PARAMETER}?region={REGION}"}
    workspace = made.file("work/moat.yaml", json.dumps({"secrets": secrets})).parent
    command = ("run", str(workspace), "--runtime", "bubblewrap")
    show = ("--", "sh", "-c", "echo $PASSWORD; env | grep -c -e AWS_ACCESS -e AWS_SECRET")

    refused = made.run(*command, *show)
    done = made.run(*command, "--yes", *show)
    planned = made.ok(*command, "--dry-run", *show)

    assert refused.returncode == 2
    wish = f"read the AWS parameter {PARAMETER} in {REGION} with your AWS credentials, and put what that gives into the"
    assert wish in refused.stderr.decode()
    assert done.stdout == b"s3cr3t-of-ssm\n0\n", done.stderr
    assert f"PASSWORD=(fetched at start)  [moat.yaml, ssm://{PARAMETER}?region={REGION}]" in planned


@pytest.fixture
def client(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Home, DaemonClient]]:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    monkeypatch.setenv("HOME", str(tmp_path))
    aws.write_profile(tmp_path)
    with ended_after(Home(private_folder(tmp_path / "home"))) as home:
        yield home, ensure_running(home)


async def test_a_role_that_the_registration_brings_is_served_like_a_grant(
    aws: Aws, client: tuple[Home, DaemonClient], tmp_path: Path
) -> None:
    home, daemon = client
    role = AwsConfig(aws.role, REGION, 1800)

    asked = a_sealed_run(home, daemon, tmp_path, grants=(), script=f"{ASK}; {ASK}; read forever", aws_config=role)
    async with asked as sealed:
        answers = [(await sealed.out.readline()).decode().strip() for _ in range(2)]
    daemon.end(sealed.made.auth_token, 0)

    body, _, status = answers[0].rpartition(" ")
    assert status == "200", body
    assert answers[0] == answers[1]  # one session for the run
    found = json.loads(body)
    left = datetime.fromisoformat(found["Expiration"]) - datetime.now(UTC)
    assert 1000 < left.total_seconds() <= 1800
    keys = [found[name] for name in ("AccessKeyId", "SecretAccessKey", "Token")]
    assert session_name(aws, keys) == f"moat-{sealed.made.run_id}"


async def test_a_session_policy_that_the_registration_brings_limits_the_runs_session(
    aws: Aws, client: tuple[Home, DaemonClient], tmp_path: Path
) -> None:
    home, daemon = client
    statement = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = AwsConfig(aws.role, REGION, session_policy=policy)

    asked = a_sealed_run(home, daemon, tmp_path, grants=(), script=f"{ASK}; read forever", aws_config=role)
    async with asked as sealed:
        body, _, status = (await sealed.out.readline()).decode().strip().rpartition(" ")
    daemon.end(sealed.made.auth_token, 0)

    assert status == "200", body
    found = json.loads(body)
    keys = [found[name] for name in ("AccessKeyId", "SecretAccessKey", "Token")]
    with pytest.raises(ClientError, match="AccessDenied"):
        aws.client("s3", *keys).create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    assert session_name(aws, keys) == f"moat-{sealed.made.run_id}"


@pytest.mark.parametrize(
    ("role", "problem"),
    [
        (AwsConfig("arn:aws:iam::123456789012:user/x"), "aws_config: it must be the ARN of a role"),
        (AwsConfig(ROLE, session_duration=5), "aws_config: .*from 15m to 12h"),
        (AwsConfig(ROLE, session_policy="{"), "aws_config: the session policy is no JSON"),
        (AwsConfig(ROLE, session_policy='{"Statement": []}'), "aws_config: the session policy has no Statement"),
    ],
)
def test_a_role_that_cannot_be_one_is_refused_at_the_registration(
    client: tuple[Home, DaemonClient], role: AwsConfig, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        client[1].register(RegisterRequest(new_run_id(), aws_config=role))
