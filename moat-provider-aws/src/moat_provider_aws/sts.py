"""Assumes a role through boto3, to see whether it can be. The temporary keys it gets are dropped at once.

boto3 is imported on first use: it takes longer than everything else in moat together. It finds the user's own
credentials by itself (profile, environment, SSO, instance role), which is why it is used here rather than `Host.fetch`.
"""

from __future__ import annotations

from moat.api import GrantFailed

from moat_provider_aws.role import Role

SESSION_NAME = "moat-grant-check"
TIMEOUT_S = 10

_UNCHECKED = "or store it unchecked: add --no-validate"


def assume(role: Role, endpoint: str = "") -> None:
    """Assume role once. endpoint: another STS than AWS's, for AWS-compatible services and tests. Blocks.

    Raises GrantFailed: STS refused, cannot be reached, or the user has no AWS credentials of their own.
    """
    import boto3  # type: ignore[import-untyped] # boto3 has no types
    from botocore.config import Config  # type: ignore[import-untyped] # nor has botocore
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped] # nor has botocore

    settings = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 2})
    extra = {"ExternalId": role.external_id} if role.external_id else {}
    try:
        session = boto3.Session(profile_name=role.profile or None, region_name=role.region)
        client = session.client("sts", endpoint_url=endpoint or None, config=settings)
        client.assume_role(RoleArn=role.arn, RoleSessionName=SESSION_NAME, DurationSeconds=role.duration_s, **extra)
    except ClientError as failure:
        code = failure.response.get("Error", {}).get("Code", "an unknown error")
        raise GrantFailed(
            f"AWS refused to let you assume the role ({code}); nothing was saved",
            hint="check the role's trust policy and your own permissions: aws sts get-caller-identity",
        ) from None
    except BotoCoreError as failure:
        raise _explained(failure, role) from None


def _explained(failure: Exception, role: Role) -> GrantFailed:
    from botocore.exceptions import (
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    if isinstance(failure, ProfileNotFound):
        return GrantFailed(
            f"there is no AWS profile {role.profile!r}; nothing was saved", hint="run: aws configure list-profiles"
        )
    if isinstance(failure, NoCredentialsError | PartialCredentialsError):
        return GrantFailed(
            "you have no AWS credentials to assume the role with; nothing was saved",
            hint=f"run: aws configure, {_UNCHECKED}",
        )
    if isinstance(failure, HTTPClientError | ConnectionError):  # connection, proxy, TLS and time-out errors alike
        return GrantFailed(
            f"AWS STS cannot be reached ({type(failure).__name__}); nothing was saved",
            hint=f"check the network, {_UNCHECKED}",
        )
    return GrantFailed(f"the role could not be checked ({type(failure).__name__}); nothing was saved", hint=_UNCHECKED)
