"""The credentials of a profile of the user's own, where no role is named. boto3 finds them: keys, SSO, a process.

    a session's, which end by themselves ─▶ as they are; no session policy can be put on them
    a user's keys, which last            ─▶ sign: as they are, in the daemon only; endpoint: GetSessionToken
                    and a session policy ─▶ GetFederationToken

Keys that last are never handed to a run.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from moat_provider_aws.keys import Keys, NoSession
from moat_provider_aws.role import Role

READ_AGAIN = timedelta(minutes=15)  # where nothing says when credentials end


def region_of(profile: str) -> str:
    """Return the region that a profile names, or "". Reads files only. Raises NoSession for one that there is not."""
    import botocore.session  # type: ignore[import-untyped] # botocore has no types
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped] # nor has it here

    try:
        session = botocore.session.Session(profile=profile)
        return session.get_config_variable("region") or ""
    except BotoCoreError as failure:
        raise explained(failure, Role("", profile=profile)) from None


def check_profile(role: Role, session: Any) -> None:
    """Raise NoSession for a profile that nobody is there to answer for."""
    if not role.profile:
        return
    settings = session._session.get_scoped_config()  # what botocore offers; boto3 has no word for it
    if settings.get("mfa_serial") and settings.get("role_arn"):
        problem = f"the AWS profile {role.profile} asks for an MFA code, and nobody can be asked while a run needs keys"
        hint = "use a profile with SSO, or one whose credential_process keeps the session"
        raise NoSession(problem, hint, "MfaNeeded", is_final=True)


def profile_keys(role: Role, session: Any, sts: Callable[[], Any], name: str, tags: list[dict[str, str]]) -> Keys:
    """Return what a run of the profile spends. sts: makes a client. Raises NoSession, and what botocore does."""
    found = session.get_credentials()
    if found is None:
        raise no_credentials(role, "NoCredentials")
    frozen = found.get_frozen_credentials()
    ends_at = getattr(found, "_expiry_time", None) or datetime.now(UTC) + READ_AGAIN
    own = Keys(frozen.access_key, frozen.secret_key, frozen.token or "", ends_at)
    if own.session_token and role.policy:
        problem = f"the AWS profile {role.profile} has temporary credentials, on which STS puts no session policy"
        hint = (
            f"name a role too: moat grant aws --role ARN --aws-profile {shlex.quote(role.profile)} --session-policy …"
        )
        raise NoSession(problem, hint, "SessionPolicyNotApplicable", is_final=True)
    if role.policy:
        tagged = {"Tags": tags} if tags else {}
        asked = {"Name": name[:32], "DurationSeconds": role.duration_s, "Policy": role.policy, **tagged}
        return keys_in(sts().get_federation_token(**asked))
    if role.mode == "endpoint" and not own.session_token:
        return keys_in(sts().get_session_token(DurationSeconds=role.duration_s))
    return own


def keys_in(answer: Any) -> Keys:
    """Return the credentials that STS answered with."""
    found = answer["Credentials"]
    return Keys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], found["Expiration"])


def no_credentials(role: Role, kind: str) -> NoSession:
    """Return what is said to a user without AWS credentials."""
    whose = "" if role.arn else f" in the profile {role.profile}"
    what = " to assume the role with" if role.arn else ""
    return NoSession(
        f"you have no AWS credentials{whose}{what}", f"run: aws configure{with_profile(role)}", kind, is_final=False
    )


def explained(failure: Exception, role: Role) -> NoSession:
    """Return what a failure of botocore's means, in a line, with what to type."""
    from botocore.exceptions import (
        ConnectionError,
        CredentialRetrievalError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
        SSOError,
        TokenRetrievalError,
    )

    kind = type(failure).__name__
    whose = f"the AWS profile {role.profile}" if role.profile else "your AWS profile"
    if isinstance(failure, ProfileNotFound):
        text = f"there is no AWS profile {role.profile!r}"
        return NoSession(text, "run: aws configure list-profiles", kind, is_final=True)
    if isinstance(failure, SSOError | TokenRetrievalError):
        hint = f"run: aws sso login{with_profile(role)}"
        return NoSession(f"the SSO session of {whose} has expired, or there is none", hint, kind, is_final=True)
    if isinstance(failure, NoCredentialsError | PartialCredentialsError):
        return no_credentials(role, kind)
    if isinstance(failure, HTTPClientError | ConnectionError):  # connection, proxy, TLS and time-out errors alike
        return NoSession(f"AWS STS cannot be reached ({kind})", "check the network", kind, is_final=False)
    hint = f"run: aws sts get-caller-identity{with_profile(role)}"
    if isinstance(failure, CredentialRetrievalError | OSError | ValueError):
        # What the process said is not repeated: it is a program that holds keys.
        return NoSession(f"{whose} gave no credentials ({kind})", hint, kind, is_final=False)
    what = "the role could not be assumed" if role.arn else f"{whose} could not be used"
    return NoSession(f"{what} ({kind})", hint, kind, is_final=False)


def with_profile(role: Role) -> str:
    """Return the option that has the aws command use the same profile."""
    return f" --profile {shlex.quote(role.profile)}" if role.profile else ""
