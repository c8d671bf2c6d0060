"""Profiles of the user's own, and session policies: real runs, STS and S3 that check signatures and policies.

~/.aws of the host ─▶ daemon ─ a profile's own, or AssumeRole with a Policy ─▶ signs ─▶ S3
                                                                         └─▶ 127.0.0.1:19080/_moat/aws/ ─▶ boto3 inside
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.aws import BUCKET, REGION, Aws, running_aws
from support.inside import copy_distribution
from support.installation import Installation, installation

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
from botocore.exceptions import ClientError
s3 = boto3.client("s3", config=Config(s3={{"addressing_style": "path"}}, retries={{"total_max_attempts": 1}}))
try:
    if not os.path.exists("made"):
        s3.create_bucket(Bucket="{BUCKET}", CreateBucketConfiguration={{"LocationConstraint": "{REGION}"}})
        open("made", "w").close()
    s3.put_object(Bucket="{BUCKET}", Key="k", Body=b"hello")
    wrote = True
except ClientError as error:
    wrote = str(error)
keys = boto3.Session().get_credentials()
print(json.dumps({{
    "wrote": wrote,
    "read": s3.get_object(Bucket="{BUCKET}", Key="k")["Body"].read().decode(),
    "who": boto3.client("sts").get_caller_identity()["Arn"],
    "keys": [keys.access_key, keys.secret_key, keys.token or ""],
    "environment": dict(os.environ),
}}))
"""
LIMIT = {"Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}


@pytest.fixture
def aws() -> Iterator[Aws]:
    with running_aws() as running:
        yield running


@pytest.fixture
def made(aws: Aws) -> Iterator[Installation]:
    with installation() as made:
        static = f"region = {REGION}\naws_access_key_id = {aws.own[0]}\naws_secret_access_key = {aws.own[1]}"
        aws.serve(made, own=static, process=f"region = {REGION}\ncredential_process = cat {made.home}/keys")
        yield made


def found_inside(made: Installation) -> dict[str, object]:
    workspace = made.file("work/program.py", PROGRAM).parent
    copy_distribution("boto3", workspace / "lib", set())
    flags = ["--runtime", "bubblewrap", "--grant", "aws", "--policy", "strict", "--allow-host", "*.amazonaws.com"]
    flags += ["--env", "PYTHONPATH=/workspace/lib"]
    found: dict[str, object] = json.loads(made.ok("run", str(workspace), *flags, "--", "python3", "program.py"))
    return found


def write_keys_of_process(aws: Aws, home: Path) -> list[str]:
    """Have the credential_process give a session of the role's, as a tool of a company would."""
    session = aws.client("sts", *aws.key).assume_role(RoleArn=aws.role, RoleSessionName="from-process")["Credentials"]
    keys = [session[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    told = dict(zip(("AccessKeyId", "SecretAccessKey", "SessionToken"), keys, strict=True))
    answer = {"Version": 1, **told, "Expiration": session["Expiration"].isoformat()}
    (home / "keys").write_text(json.dumps(answer))
    return keys


def test_a_users_own_keys_sign_outside_and_nothing_of_them_is_inside(aws: Aws, made: Installation) -> None:
    said = made.ok("grant", "aws", "--profile", "own")

    found = found_inside(made)

    assert said == "aws granted from AWS profile own; spent on *.amazonaws.com, *.api.aws, *.on.aws\n"
    assert found["wrote"] is True
    assert str(found["who"]).endswith(":user/own")
    assert [secret for secret in aws.own if secret in json.dumps(found)] == []
    stored = b"".join(path.read_bytes() for path in (made.home / ".moat").rglob("*") if path.is_file())
    assert [secret for secret in aws.own if secret.encode() in stored] == []


@pytest.mark.parametrize("mode", ["sign", "endpoint"])
def test_what_a_credential_process_gives_is_spent_in_either_mode(aws: Aws, made: Installation, mode: str) -> None:
    keys = write_keys_of_process(aws, made.home)
    made.ok("grant", "aws", "--aws-profile", "process", "--mode", mode)

    found = found_inside(made)

    assert found["wrote"] is True
    assert str(found["who"]).endswith("assumed-role/agent/from-process")
    assert (found["keys"] == keys) is (mode == "endpoint")
    assert (keys[1] in json.dumps(found)) is (mode == "endpoint")


@pytest.mark.parametrize("mode", ["sign", "endpoint"])
def test_a_session_policy_limits_what_the_role_may_in_either_mode(aws: Aws, made: Installation, mode: str) -> None:
    limit = made.file("limit.json", json.dumps(LIMIT, indent=2))
    grant = ("grant", "aws", "--role", aws.role, "--region", REGION, "--mode", mode)

    made.ok(*grant)
    unlimited = found_inside(made)
    said = made.ok(*grant, "--session-policy", str(limit))
    limited = found_inside(made)
    listed, shown = made.ok("grant", "list"), made.ok("grant", "show", "aws")

    assert said.startswith("aws granted from --role with session policy ")
    digest = said.partition("session policy ")[2].partition(";")[0]
    assert f"--role with session policy {digest}" in listed
    assert f"session_policy: {'':<4} sha256 {digest}, 1 statement, " in shown
    assert "GetObject" not in shown + listed
    assert (unlimited["wrote"], unlimited["read"]) == (True, "hello")
    assert "AccessDenied" in str(limited["wrote"])
    assert limited["read"] == "hello"
    assert "assumed-role/agent/moat-run_" in str(limited["who"])


def test_a_session_policy_that_cannot_be_put_on_is_refused_by_the_grant(aws: Aws, made: Installation) -> None:
    write_keys_of_process(aws, made.home)

    done = made.run("grant", "aws", "--profile", "process", "--session-policy", json.dumps(LIMIT))

    assert done.returncode == 1
    told = done.stderr.decode()
    assert "error: the AWS profile process has temporary credentials, on which STS puts no session policy" in told
    assert "hint: name a role too: moat grant aws --role ARN --aws-profile process" in told
    assert "nothing is granted yet" in made.run("grant", "list").stderr.decode()


def test_a_profile_that_is_none_is_told_even_where_nothing_is_asked(made: Installation) -> None:
    done = made.run("grant", "aws", "--profile", "prod", "--no-validate")

    said = done.stderr.decode()
    assert said == "error: there is no AWS profile 'prod'; nothing was saved\nhint: run: aws configure list-profiles\n"
