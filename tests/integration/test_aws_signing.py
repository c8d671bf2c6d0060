"""AWS without a key inside: boto3 signs with placeholders, the proxy signs again, STS and S3 check every signature.

boto3 inside, placeholder keys ─▶ proxy ─▶ daemon: the session's keys ─▶ S3, STS
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.aws import BUCKET, HOST, REGION, STS_HOST, Aws, running_aws
from support.inside import BROUGHT, copy_distribution
from support.installation import Installation, installation

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    # botocore itself calls a function that Python 3.12 deprecates; nothing of ours.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]
PROGRAM = f"""
import io, json, os, urllib.error, urllib.request
import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
path = Config(s3={{"addressing_style": "path"}}, retries={{"total_max_attempts": 1}})

def refused(call, *words, **facts):
    try:
        return call(*words, **facts)
    except ClientError as error:
        return str(error)

def fetched(url):
    try:
        return urllib.request.urlopen(url).read().decode()
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]

s3 = boto3.client("s3", config=path)
s3.create_bucket(Bucket="{BUCKET}", CreateBucketConfiguration={{"LocationConstraint": "{REGION}"}})
s3.put_object(Bucket="{BUCKET}", Key="a b/ü+c", Body=b"hello", Metadata={{"note": "two  spaces"}})
parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
s3.upload_fileobj(io.BytesIO(b"x" * (6 << 20)), "{BUCKET}", "large", Config=parts)
url = s3.generate_presigned_url("get_object", Params={{"Bucket": "{BUCKET}", "Key": "a b/ü+c"}}, ExpiresIn=60)
other = boto3.client("s3", config=path, aws_access_key_id="AKIAOWNKEY0000000000", aws_secret_access_key="own")
elsewhere = boto3.client("sts", region_name="eu-west-1", endpoint_url="https://{STS_HOST}", config=path)
print(json.dumps({{
    "body": s3.get_object(Bucket="{BUCKET}", Key="a b/ü+c")["Body"].read().decode(),
    "size": len(s3.get_object(Bucket="{BUCKET}", Key="large")["Body"].read()),
    "who": boto3.client("sts", config=path).get_caller_identity()["Arn"],
    "expired": fetched(url.replace("X-Amz-Expires=60", "X-Amz-Expires=0")),
    "forbidden": refused(s3.delete_object, Bucket="{BUCKET}", Key="large"),
    "own": refused(other.get_object, Bucket="{BUCKET}", Key="large"),
    "elsewhere": refused(elsewhere.get_caller_identity),
    "environment": {{name: value for name, value in os.environ.items() if name.startswith("AWS_")}},
}}))
"""


@pytest.fixture
def aws() -> Iterator[Aws]:
    with running_aws() as running:
        yield running


@pytest.fixture
def made(aws: Aws) -> Iterator[Installation]:
    with installation() as made:
        aws.serve(made)
        yield made


def workspace_of(made: Installation) -> Path:
    workspace = made.file("work/program.py", PROGRAM).parent
    copy_distribution("boto3", workspace / "lib", set())
    return workspace


def test_what_boto3_signs_with_placeholders_is_signed_with_the_runs_own_session(aws: Aws, made: Installation) -> None:
    said = made.ok("grant", "aws", "--role", aws.role, "--region", REGION)
    flags = ["--runtime", "bubblewrap", "--grant", "aws", "--policy", "strict", "--env", "PYTHONPATH=/workspace/lib"]

    found = json.loads(made.ok("run", str(workspace_of(made)), *flags, "--", "python3", "program.py"))

    assert said == "aws granted from --role; spent on *.amazonaws.com, *.api.aws, *.on.aws\n"
    assert (found["body"], found["size"]) == ("hello", 6 << 20)
    trace = json.loads(made.ok("trace", "--json"))
    (run_id,) = {each["run_id"] for each in trace}
    assert found["who"].endswith(f"assumed-role/agent/moat-{run_id}")
    assert found["expired"][0] == 403
    assert "<Message>moat: the presigned URL has expired</Message>" in found["expired"][1]
    assert "(AccessDenied)" in found["forbidden"]
    assert "a key of the run's own: the grant's is used instead" in found["own"]
    assert f"the request is signed for eu-west-1, and {STS_HOST} is in {REGION}" in found["elsewhere"]
    assert {each["grants"] == ["aws"] for each in trace if each["status"] == 200} == {True}
    found["environment"].pop("AWS_CA_BUNDLE")
    assert found["environment"] == {
        "AWS_ACCESS_KEY_ID": "AKIAMOAT000000000000",
        "AWS_SECRET_ACCESS_KEY": "moat-placeholder-of-no-use-outside-of-this",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }
    written = b"".join(path.read_bytes() for path in (made.home / ".moat").rglob("*") if path.is_file())
    assert [secret for secret in aws.key if secret.encode() in written] == []


@pytest.mark.parametrize("mode", ["sign", "endpoint"])
def test_the_aws_command_copies_a_large_file_in_parts_in_either_mode(aws: Aws, made: Installation, mode: str) -> None:
    made.ok("grant", "aws", "--role", aws.role, "--region", REGION, "--mode", mode)
    workspace = made.file("work/.made", "").parent
    shutil.copytree(BROUGHT / "aws", workspace / "aws", ignore=shutil.ignore_patterns("examples", "topics"))
    s3 = f"python3 -m awscli s3api --endpoint-url https://{HOST}"
    copy = f"python3 -m awscli s3 --endpoint-url https://{HOST} cp"
    script = f"""
        head -c 9000000 /dev/urandom > large
        {s3} create-bucket --bucket {BUCKET} --create-bucket-configuration LocationConstraint={REGION} > /dev/null
        {copy} --only-show-errors large s3://{BUCKET}/large && {copy} --only-show-errors s3://{BUCKET}/large back
        cmp large back && python3 -m awscli sts get-caller-identity --query Arn --output text
    """
    flags = ["--runtime", "bubblewrap", "--grant", "aws", "--policy", "strict", "--allow-host", "*.amazonaws.com"]

    said = made.ok("run", str(workspace), *flags, "--env", "PYTHONPATH=/workspace/aws", "--", "sh", "-ec", script)

    asked = [each for each in json.loads(made.ok("trace", "--json")) if each["path"].endswith("/large")]
    assert said.strip().endswith(f"assumed-role/agent/moat-{asked[0]['run_id']}")
    assert [each["method"] for each in asked].count("PUT") == 2
