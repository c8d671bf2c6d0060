"""Assumes a role through boto3: once to see whether it can be, and for each run that is served.

boto3 is imported on first use: it takes longer than everything else in moat together. It finds the user's own
credentials by itself (profile, SSO, credential_process, instance role), which is why it is used here rather than
`Host.fetch`. What it finds stays here: only what STS answered is ever returned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moat.api import GrantFailed

from moat_provider_aws.role import Role

SESSION_NAME = "moat-grant-check"
TAG = "moat-run"
TIMEOUT_S = 10
SERVING_TIMEOUT_S = 3  # a run's question is answered within ten seconds, and may need STS twice

_UNCHECKED = "or store it unchecked: add --no-validate"
_SAVED = "; nothing was saved"
_PASSING = ("InternalFailure", "RequestTimeout", "ServiceUnavailable")


@dataclass(frozen=True, slots=True)
class Keys:
    """The temporary credentials of one session."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


class NoSession(GrantFailed):
    """STS gave no session. code: as AWS names it. is_final: whether to ask again is of no use."""

    def __init__(self, problem: str, hint: str, code: str, *, is_final: bool) -> None:
        super().__init__(problem, hint=hint)
        self.code = code
        self.is_final = is_final


def assume(role: Role, endpoint: str = "") -> None:
    """Assume role once; the keys are dropped. endpoint: another STS than AWS's, for services like it and tests. Blocks.

    Raises GrantFailed: STS refused, cannot be reached, or the user has no AWS credentials of their own.
    """
    try:
        _session(role, {"RoleSessionName": SESSION_NAME}, endpoint, TIMEOUT_S, 2)
    except NoSession as failure:
        hint = failure.hint if failure.is_final else f"{failure.hint}, {_UNCHECKED}"
        raise GrantFailed(f"{failure.problem}{_SAVED}", hint=hint) from None


def session_for(role: Role, run_id: str) -> Keys:
    """Return a new session of role, named after the run, and tagged with it where the role allows that. Blocks.

    Raises NoSession.
    """
    named = {"RoleSessionName": f"moat-{run_id}"}
    try:
        return _session(role, {**named, "Tags": [{"Key": TAG, "Value": run_id}]}, "", SERVING_TIMEOUT_S, 1)
    except NoSession as failure:
        if failure.code != "AccessDenied":
            raise
    # Tags need sts:TagSession in the role's trust policy, and AWS does not say that it is what was missing.
    return _session(role, named, "", SERVING_TIMEOUT_S, 1)


def _session(role: Role, asked: dict[str, Any], endpoint: str, timeout_s: int, attempts: int) -> Keys:
    import boto3  # type: ignore[import-untyped] # boto3 has no types
    from botocore.config import Config  # type: ignore[import-untyped] # nor has botocore
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped] # nor has botocore

    settings = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": attempts})
    extra = {"ExternalId": role.external_id} if role.external_id else {}
    try:
        session = boto3.Session(profile_name=role.profile or None, region_name=role.region)
        client = session.client("sts", endpoint_url=endpoint or None, config=settings)
        answer = client.assume_role(RoleArn=role.arn, DurationSeconds=role.duration_s, **asked, **extra)
    except ClientError as failure:
        code = failure.response.get("Error", {}).get("Code", "an unknown error")
        raise NoSession(
            f"AWS refused to let you assume the role ({code})",
            "check the role's trust policy and your own permissions: aws sts get-caller-identity",
            code,
            is_final=not code.startswith("Throttl") and code not in _PASSING,
        ) from None
    except BotoCoreError as failure:
        raise _explained(failure, role) from None
    found = answer["Credentials"]
    return Keys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], found["Expiration"])


def _explained(failure: Exception, role: Role) -> NoSession:
    from botocore.exceptions import (
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    kind = type(failure).__name__
    if isinstance(failure, ProfileNotFound):
        text = f"there is no AWS profile {role.profile!r}"
        return NoSession(text, "run: aws configure list-profiles", kind, is_final=True)
    if isinstance(failure, NoCredentialsError | PartialCredentialsError):
        return NoSession(
            "you have no AWS credentials to assume the role with", "run: aws configure", kind, is_final=False
        )
    if isinstance(failure, HTTPClientError | ConnectionError):  # connection, proxy, TLS and time-out errors alike
        return NoSession(f"AWS STS cannot be reached ({kind})", "check the network", kind, is_final=False)
    hint = "run: aws sts get-caller-identity"
    return NoSession(f"the role could not be assumed ({kind})", hint, kind, is_final=False)
