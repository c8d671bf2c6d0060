"""`moat grant aws` as a user types it, against a small STS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from providers.aws.sts import FakeSts, running_sts

MOAT = Path(sys.executable).with_name("moat")
ARN = "arn:aws:iam::123456789012:role/agent"


def grant(home: Path, sts: FakeSts, *options: str) -> subprocess.CompletedProcess[str]:
    env = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "MOAT_KEYRING_BACKEND": "file",
        "AWS_ENDPOINT_URL_STS": sts.url,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    argv = [str(MOAT), "grant", "aws", "--role", ARN, *options]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


@pytest.mark.timeout(60)
def test_a_role_that_can_be_assumed_is_stored_and_what_sts_gave_is_not(tmp_path: Path) -> None:
    with running_sts() as sts:
        done = grant(tmp_path, sts, "--session-duration", "1h")

    said = "aws granted from --role; spent on *.amazonaws.com, *.api.aws, *.on.aws\n"
    assert (done.returncode, done.stdout) == (0, said)
    assert sts.asked[0]["DurationSeconds"] == "3600"
    stored = b"".join(path.read_bytes() for path in (tmp_path / ".moat").rglob("*") if path.is_file())
    assert b"s3cr3t" not in stored
    assert b"ASIAEXAMPLE" not in stored


@pytest.mark.timeout(60)
def test_a_role_that_is_refused_is_not_stored(tmp_path: Path) -> None:
    with running_sts(denies=True) as sts:
        done = grant(tmp_path, sts)

    assert done.returncode == 1
    assert "error: AWS refused to let you assume the role (AccessDenied); nothing was saved" in done.stderr
    assert not (tmp_path / ".moat").exists()
