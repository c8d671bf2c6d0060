"""Parameters of AWS Systems Manager as secrets of a run: `ssm:///prod/password?region=eu-west-3&profile=dev`.

boto3 finds the user's own credentials, in the user's own process, as the aws command would.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from moat.api import Host, SecretFailed, SecretSource

from moat_provider_aws.keys import NoSession
from moat_provider_aws.process import bound

TIMEOUT_S = 10
# Names as PutParameter takes them, with `:version` or `:label`, or the ARN of one that is shared with the account.
_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,2048}")
_REGION = re.compile(r"[a-z]{2,8}(?:-[a-z]{2,16}){1,3}-[0-9]{1,2}")
_PROFILE = re.compile(r"[\x21-\x7e]{1,128}")
_SHAPE = "write it as in ssm:///prod/password?region=eu-west-3&profile=dev"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter. region, profile: "" where the user's own settings say."""

    name: str
    region: str = ""
    profile: str = ""


class Parameters(SecretSource):
    """Values of Systems Manager's parameter store."""

    name = "ssm"
    summary = "AWS Systems Manager parameters"

    def describe(self, reference: str) -> str:
        """Name the parameter, and whose credentials read it."""
        asked = parse_parameter(reference)
        whose = f"your AWS profile {asked.profile}" if asked.profile else "your AWS credentials"
        return f"read the AWS parameter {asked.name}{f' in {asked.region}' if asked.region else ''} with {whose}"

    async def fetch(self, reference: str, host: Host) -> str:
        """Read the parameter, decrypted."""
        import asyncio  # here: `moat --help` loads every provider, and must be quick

        del host
        return await asyncio.to_thread(read_parameter, parse_parameter(reference))


def parse_parameter(reference: str) -> Parameter:
    """Return what reference, without its `ssm://`, names. Raises SecretFailed."""
    name, _, query = reference.partition("?")
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        options = [("", "")]
    told = dict(options)
    is_known = told.keys() <= {"region", "profile"} and len(told) == len(options)
    if not _NAME.fullmatch(name) or not is_known:
        raise SecretFailed("it names no parameter of AWS Systems Manager", hint=_SHAPE)
    if "region" in told and not _REGION.fullmatch(told["region"]):
        raise SecretFailed("its region is no AWS region", hint=_SHAPE)
    if "profile" in told and not _PROFILE.fullmatch(told["profile"]):
        raise SecretFailed("its profile is no name of an AWS profile", hint=_SHAPE)
    return Parameter(name, told.get("region", ""), told.get("profile", ""))


def read_parameter(asked: Parameter) -> str:
    """Return a parameter's value. Blocks. Raises SecretFailed."""
    import boto3  # type: ignore[import-untyped] # boto3 has no types
    from botocore.config import Config  # type: ignore[import-untyped] # nor has botocore
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped] # nor has botocore

    settings = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 2})
    try:
        session = boto3.Session(profile_name=asked.profile or None, region_name=asked.region or None)
        bound(session)
        answer = session.client("ssm", config=settings).get_parameter(Name=asked.name, WithDecryption=True)
    except ClientError as failure:
        code = failure.response.get("Error", {}).get("Code", "an unknown error")
        raise _refused(code, asked) from None
    except BotoCoreError as failure:
        raise _explained(failure, asked) from None
    except NoSession as failure:
        raise SecretFailed(failure.problem, hint=failure.hint) from None
    return str(answer["Parameter"]["Value"])


def _refused(code: str, asked: Parameter) -> SecretFailed:
    if code in ("ParameterNotFound", "ParameterVersionNotFound"):
        where = f" --region {asked.region}" if asked.region else ""
        hint = f"run: aws ssm describe-parameters{where}{_with_profile(asked)}"
        return SecretFailed(f"there is no AWS parameter {asked.name} there", hint=hint)
    if code.startswith("ExpiredToken"):
        return SecretFailed("your AWS session has ended", hint=f"run: aws sso login{_with_profile(asked)}")
    hint = (
        f"it takes ssm:GetParameter, and kms:Decrypt of its key; run: aws sts get-caller-identity{_with_profile(asked)}"
    )
    return SecretFailed(f"AWS refused to give the parameter {asked.name} ({code})", hint=hint)


def _explained(failure: Exception, asked: Parameter) -> SecretFailed:
    from botocore.exceptions import (
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
        ProfileNotFound,
        SSOError,
        TokenRetrievalError,
    )

    kind = type(failure).__name__
    if isinstance(failure, ProfileNotFound):
        name = asked.profile or "of AWS_PROFILE"
        return SecretFailed(f"there is no AWS profile {name}", hint="run: aws configure list-profiles")
    if isinstance(failure, NoRegionError):
        return SecretFailed("no AWS region is set", hint="add ?region=eu-west-3, or run: aws configure")
    if isinstance(failure, SSOError | TokenRetrievalError):
        return SecretFailed("your AWS session has ended", hint=f"run: aws sso login{_with_profile(asked)}")
    if isinstance(failure, NoCredentialsError | PartialCredentialsError):
        return SecretFailed("you have no AWS credentials", hint=f"run: aws configure{_with_profile(asked)}")
    if isinstance(failure, HTTPClientError | ConnectionError):  # connection, proxy, TLS and time-out errors alike
        return SecretFailed(f"AWS Systems Manager cannot be reached ({kind})", hint="check the network")
    hint = f"run: aws sts get-caller-identity{_with_profile(asked)}"
    return SecretFailed(f"the AWS parameter {asked.name} could not be read ({kind})", hint=hint)


def _with_profile(asked: Parameter) -> str:
    return f" --profile {asked.profile}" if asked.profile else ""
