"""A `credential_process` that never ends, through the real boto3: it is ended, with what it started."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

import pytest
from moat.api import GrantFailed, SecretFailed
from moat_provider_aws import process
from moat_provider_aws.keys import NoSession
from moat_provider_aws.parameters import Parameter, read_parameter
from moat_provider_aws.role import Role
from moat_provider_aws.sts import assume, session_for

ARN = "arn:aws:iam::123456789012:role/agent"
# Its child holds the pipe open: who waits for the end of what is printed would wait for that, too.
HANGS = "sleep 600 & echo $$ $! > {place}; wait"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a config whose profile `dev` has a process that hangs; return where it writes who it is."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(process, "LIMIT_S", 2.0)
    place = tmp_path / "pids"
    folder = tmp_path / ".aws"
    folder.mkdir()
    hangs = f"credential_process = {shlex.join(['sh', '-c', HANGS.format(place=place)])}"
    (folder / "config").write_text(
        f"[profile dev]\n{hangs}\n[profile above]\nrole_arn = {ARN}\nsource_profile = dev\n[default]\n{hangs}\n"
    )
    return place


def are_gone(place: Path) -> bool:
    """Whether the process and its child end."""
    limit = time.monotonic() + 30
    while any(_lives(int(pid)) for pid in place.read_text().split()):
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def _lives(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("role", "profile"),
    [
        pytest.param(Role("", profile="dev", mode="sign"), "dev", id="a profile's own"),
        pytest.param(Role(ARN, profile="dev"), "dev", id="what a role is assumed with"),
        pytest.param(Role("", profile="above", mode="sign"), "dev", id="the source of a profile with a role"),
        pytest.param(Role(ARN), "default", id="the usual profile"),
    ],
)
def test_a_process_that_hangs_is_ended_and_told_with_its_profile(place: Path, role: Role, profile: str) -> None:
    told = f"the credential_process of the AWS profile {profile} did not end within 2 s"

    with pytest.raises(NoSession, match=told) as caught:
        session_for(role, "run_1")

    assert caught.value.hint == f"run it yourself: aws sts get-caller-identity --profile {profile}"
    assert not caught.value.is_final
    if not process._has_terminal():  # else what it started is left to the terminal's user
        assert are_gone(place)


def test_a_grant_says_so_too(place: Path) -> None:
    with pytest.raises(GrantFailed, match="AWS profile dev did not end within 2 s; nothing was saved"):
        assume(Role("", profile="dev", mode="sign"))


def test_a_parameter_that_a_run_asks_for_says_so_too(place: Path) -> None:
    with pytest.raises(SecretFailed, match="AWS profile dev did not end within 2 s"):
        read_parameter(Parameter("/prod/password", "eu-west-3", "dev"))
