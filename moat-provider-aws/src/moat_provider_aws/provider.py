"""The AWS grant: a role, checked by assuming it, and assumed again for each run that has it; or a profile's own.

mode sign:      an SDK inside, placeholder keys ─▶ proxy ─▶ sign, in the daemon ─▶ the run's session, of STS ─▶ AWS
mode endpoint:  an SDK inside ─ GET 127.0.0.1:19080/_moat/aws/ ─▶ respond, in the daemon ─▶ the session's keys

Signing is what a grant does unless told otherwise: then no key is inside. At the endpoint the run is handed keys of its
own that soon end, for clients that sign what the proxy cannot sign again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from moat.api import (
    ContainerSetup,
    Credential,
    CredentialProvider,
    Endpoint,
    EndpointProvider,
    GrantFailed,
    GrantOption,
    Host,
    Match,
    ProxyPath,
    Question,
    Reply,
    Respond,
    Rule,
    Sign,
    Signed,
    Unsignable,
    Unsigned,
)

from moat_provider_aws.answers import failed, granted, refusal, unsignable
from moat_provider_aws.policy import read_policy
from moat_provider_aws.role import DEFAULT_REGION, REGION, Role, parse_role, profile_typed, role_of
from moat_provider_aws.scope import PLACEHOLDER_ID, PLACEHOLDER_KEY
from moat_provider_aws.sts import NoSession, assume

if TYPE_CHECKING:
    from moat_provider_aws.sessions import Sessions

PLACE = ProxyPath("/_moat/aws/")
DECLARED = "x-amz-content-sha256"  # S3's clients say there what the body is; for others' it is held
HOSTS = {
    "aws": ("*.amazonaws.com", "*.api.aws", "*.on.aws"),
    "aws-us-gov": ("*.amazonaws.com", "*.api.aws", "*.on.aws"),
    "aws-cn": ("*.amazonaws.com.cn",),
}
_OWN_KEYS = "AWS_ACCESS_KEY_ID"
_OWN_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")


class Aws(CredentialProvider, EndpointProvider):
    """An IAM role, or a profile. Its ARN or name is what is stored; the user's own AWS credentials never are."""

    name = "aws"
    summary = "AWS: requests signed as an IAM role, or with a profile of yours"
    hosts = tuple(dict.fromkeys(host for partition in HOSTS.values() for host in partition))
    grant_options = (
        GrantOption("role", "ARN of the role to assume; without it, a profile's own credentials are spent"),
        GrantOption("region", "region of the sessions (default the profile's where there is no role, else us-east-1)"),
        GrantOption("session-duration", "how long a session lasts, 15m to 12h (default 15m)"),
        GrantOption("external-id", "external id that the role's trust policy demands"),
        GrantOption(
            "aws-profile", "profile of your own AWS config, alone or to assume the role with (default AWS_PROFILE)"
        ),
        GrantOption("profile", "the same as --aws-profile"),
        GrantOption("session-policy", "file or JSON: an IAM policy that limits every session further"),
        GrantOption("mode", "sign: the proxy signs, no key is inside (default); endpoint: runs get keys that soon end"),
    )

    def __init__(self, assume: Callable[[Role, str], None] = assume, sessions: Sessions | None = None) -> None:
        self._assume = assume
        self._sessions = sessions

    async def grant(self, host: Host) -> Credential:
        """Take the role from --role, or the profile that is named in its place."""
        arn = host.options.get("role", "")
        profile = profile_typed(host.options)
        return await self._checked(arn, "--role" if arn or not profile else f"AWS profile {profile}", host)

    async def accept(self, secret: str, host: Host) -> Credential:
        """Take the role's ARN from standard input; the other options still count."""
        return await self._checked(secret, "standard input", host)

    def rules(self, credential: Credential) -> Sequence[Rule]:
        """Return what is signed: every host of AWS's; none where the SDK inside signs."""
        role = role_of(credential)
        if role.mode != "sign":
            return []
        return [Sign(Match(host), self.name, DECLARED) for host in HOSTS[role.partition]]

    def container(self, credential: Credential) -> ContainerSetup:
        """Say where keys are, and which region is meant; older programs know one variable for it, newer another."""
        role = role_of(credential)
        keys = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": PLACE.url}
        if role.mode == "sign":
            keys = {"AWS_ACCESS_KEY_ID": PLACEHOLDER_ID, "AWS_SECRET_ACCESS_KEY": PLACEHOLDER_KEY}
        return ContainerSetup(env={**keys, "AWS_REGION": role.region, "AWS_DEFAULT_REGION": role.region})

    def endpoints(self, credential: Credential) -> Sequence[Endpoint]:
        """Return where SDKs ask for keys. Raises GrantFailed for a role that cannot be one."""
        if role_of(credential).mode == "sign":
            return ()
        return (Endpoint(PLACE, Respond("credentials"), self.name),)

    async def respond(self, question: Question, credential: Credential) -> Reply:
        """Answer with the keys of the run's session, or say why there are none."""
        if (refused := refusal(question)) is not None:
            return refused
        try:
            return granted(await self._open().keys(role_of(credential), question.run_id))
        except NoSession as failure:
            return failed(failure)

    async def sign(self, request: Unsigned, credential: Credential) -> Signed:
        """Sign with the run's session what its SDK signed with placeholders; pass on what nobody signed."""
        from moat_provider_aws.sign import checked_scope, signed_with  # here, as they import botocore

        try:
            scope = checked_scope(request)
            if scope is None:
                return Signed(request.target, is_spent=False)
            keys = await self._open().keys(role_of(credential), request.run_id)
            return signed_with(keys, scope, request, datetime.now(UTC))
        except Unsignable as refusal:
            raise unsignable(refusal, request) from None

    def _open(self) -> Sessions:
        from moat_provider_aws.sessions import Sessions  # here, as it imports asyncio

        if self._sessions is None:
            self._sessions = Sessions()
        return self._sessions

    async def _checked(self, arn: str, source: str, host: Host) -> Credential:
        typed = host.options.get("session-policy")
        policy = "" if typed is None else read_policy(typed, host.read)
        role = parse_role(arn, host.options, host.env.get("AWS_PROFILE", ""), policy)
        import asyncio  # here: `moat --help` loads every provider, and must be quick

        if not role.arn and "region" not in host.options:
            role = replace(role, region=await asyncio.to_thread(_region, role))
        if host.validate:
            endpoint = host.env.get("AWS_ENDPOINT_URL_STS") or host.env.get("AWS_ENDPOINT_URL") or ""
            await asyncio.to_thread(self._assume, role, endpoint)
        if not role.profile and host.env.get(_OWN_KEYS):
            host.say(f"note: runs get keys through your AWS profile; {_OWN_KEYS} of this shell is not kept for them")
        for name in _OWN_FILES:
            if host.env.get(name):
                host.say(f"note: runs get keys through ~/.aws; {name} of this shell is not kept for them")
        return Credential(self.name, role.secret, role.told(source), role.metadata)


def _region(role: Role) -> str:
    from moat_provider_aws.profile import region_of  # here, as it imports botocore

    try:
        found = region_of(role.profile)
    except NoSession as failure:
        raise GrantFailed(f"{failure.problem}; nothing was saved", hint=failure.hint) from None
    return found if REGION.fullmatch(found) else DEFAULT_REGION
