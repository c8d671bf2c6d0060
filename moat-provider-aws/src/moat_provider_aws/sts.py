"""Assumes a role through boto3: once to see whether it can be, and for each run that is served.

boto3 is imported on first use: it takes longer than everything else in moat together. It finds the user's own
credentials by itself (profile, SSO, credential_process, instance role), which is why it is used here rather than
`Host.fetch`. What it finds stays here: only what STS answered is ever returned.
"""

from __future__ import annotations

import functools
from typing import Any

from moat.api import GrantFailed

from moat_provider_aws.keys import Keys as Keys
from moat_provider_aws.keys import NoSession as NoSession
from moat_provider_aws.process import bound
from moat_provider_aws.profile import check_profile, explained, keys_in, profile_keys, with_profile
from moat_provider_aws.role import Role

SESSION_NAME = "moat-grant-check"
TAG = "moat-run"
TIMEOUT_S = 10
SERVING_TIMEOUT_S = 3  # a run's question is answered within ten seconds, and may need STS twice

_UNCHECKED = "or store it unchecked: add --no-validate"
_SAVED = "; nothing was saved"
_PASSING = ("InternalFailure", "RequestTimeout", "ServiceUnavailable")


def assume(role: Role, endpoint: str = "") -> None:
    """Open a session once, as a run would; the keys are dropped. Blocks.

    endpoint: another STS than AWS's, for services like it and tests. Raises GrantFailed: STS refused, cannot be
    reached, or the user has no AWS credentials of their own.
    """
    try:
        _session(role, SESSION_NAME, [], endpoint, TIMEOUT_S, 2, is_check=True)
    except NoSession as failure:
        hint = failure.hint if failure.is_final else f"{failure.hint}, {_UNCHECKED}"
        raise GrantFailed(f"{failure.problem}{_SAVED}", hint=hint) from None


def session_for(role: Role, run_id: str) -> Keys:
    """Return a new session, named after the run, and tagged with it where AWS allows that. Blocks.

    Raises NoSession.
    """
    name = f"moat-{run_id}"
    try:
        return _session(role, name, [{"Key": TAG, "Value": run_id}], "", SERVING_TIMEOUT_S, 1)
    except NoSession as failure:
        if failure.code != "AccessDenied" or not (role.arn or role.policy):
            raise
    # Tags need sts:TagSession in the role's trust policy, and AWS does not say that it is what was missing.
    return _session(role, name, [], "", SERVING_TIMEOUT_S, 1)


def _session(
    role: Role,
    name: str,
    tags: list[dict[str, str]],
    endpoint: str,
    timeout_s: int,
    attempts: int,
    *,
    is_check: bool = False,
) -> Keys:
    import boto3  # type: ignore[import-untyped] # boto3 has no types
    from botocore.config import Config  # type: ignore[import-untyped] # nor has botocore
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped] # nor has botocore

    settings = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": attempts})
    try:
        session = boto3.Session(profile_name=role.profile or None, region_name=role.region)
        check_profile(role, session)
        bound(session)
        sts = functools.cache(lambda: session.client("sts", endpoint_url=endpoint or None, config=settings))
        if role.arn:
            return _assumed(role, sts(), name, tags)
        keys = profile_keys(role, session, sts, name, tags)
        if is_check:
            sts().get_caller_identity()
        return keys
    except ClientError as failure:
        raise _refused(failure.response.get("Error", {}).get("Code", "an unknown error"), role) from None
    except (BotoCoreError, OSError, ValueError) as failure:  # the latter two: a credential_process that is none
        raise explained(failure, role) from None


def _assumed(role: Role, sts: Any, name: str, tags: list[dict[str, str]]) -> Keys:
    asked = {"RoleArn": role.arn, "RoleSessionName": name, "DurationSeconds": role.duration_s}
    more = {"ExternalId": role.external_id, "Tags": tags, "Policy": role.policy}
    return keys_in(sts.assume_role(**asked, **{key: value for key, value in more.items() if value}))


def _refused(code: str, role: Role) -> NoSession:
    is_final = not code.startswith("Throttl") and code not in _PASSING
    whose = f"the AWS profile {role.profile}" if role.profile else "your AWS credentials"
    identity = f"aws sts get-caller-identity{with_profile(role)}"
    if code.startswith("ExpiredToken"):
        hint = f"run: aws sso login{with_profile(role)}, or renew its keys as you got them"
        return NoSession(f"the session of {whose} has expired ({code})", hint, code, is_final=True)
    if code in ("MalformedPolicyDocument", "PackedPolicyTooLarge"):
        hint = "look at what you gave --session-policy, and run moat grant aws again"
        return NoSession(f"AWS refused the session policy ({code})", hint, code, is_final=True)
    if role.arn:
        hint = f"check the role's trust policy and your own permissions: {identity}"
        return NoSession(f"AWS refused to let you assume the role ({code})", hint, code, is_final=is_final)
    return NoSession(f"AWS refused {whose} a session ({code})", f"run: {identity}", code, is_final=is_final)
