"""The AWS grant: a role, checked by assuming it, and assumed again for each run that has it.

an SDK inside ─ GET 127.0.0.1:19080/_moat/aws/ ─▶ respond, in the daemon ─▶ the run's session, of STS ─▶ its keys

No rules: requests to AWS are signed by the SDK inside, with keys that are the run's own and soon end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from moat.api import (
    ContainerSetup,
    Credential,
    CredentialProvider,
    Endpoint,
    EndpointProvider,
    GrantOption,
    Host,
    ProxyPath,
    Question,
    Reply,
    Respond,
    Rule,
)

from moat_provider_aws.answers import failed, granted, refusal
from moat_provider_aws.role import Role, parse_role, role_of
from moat_provider_aws.sts import NoSession, assume

if TYPE_CHECKING:
    from moat_provider_aws.sessions import Sessions

PLACE = ProxyPath("/_moat/aws/")
_OWN_KEYS = "AWS_ACCESS_KEY_ID"


class Aws(CredentialProvider, EndpointProvider):
    """An IAM role. Its ARN is what is stored; the user's own AWS credentials never are."""

    name = "aws"
    summary = "AWS: short-lived keys of an IAM role"
    grant_options = (
        GrantOption("role", "ARN of the role to assume", required=True),
        GrantOption("region", "region of the role's sessions (default us-east-1)"),
        GrantOption("session-duration", "how long a session lasts, 15m to 12h (default 15m)"),
        GrantOption("external-id", "external id that the role's trust policy demands"),
        GrantOption("aws-profile", "profile of yours to assume the role with (default AWS_PROFILE)"),
    )

    def __init__(self, assume: Callable[[Role, str], None] = assume, sessions: Sessions | None = None) -> None:
        self._assume = assume
        self._sessions = sessions

    async def grant(self, host: Host) -> Credential:
        """Take the role from --role."""
        return await self._checked(host.options.get("role", ""), "--role", host)

    async def accept(self, secret: str, host: Host) -> Credential:
        """Take the role's ARN from standard input; the other options still count."""
        return await self._checked(secret, "standard input", host)

    def rules(self, credential: Credential) -> Sequence[Rule]:
        """None: the SDK inside signs."""
        del credential
        return []

    def container(self, credential: Credential) -> ContainerSetup:
        """Say where keys are, and which region is meant; older programs know one variable for it, newer another."""
        region = role_of(credential).region
        return ContainerSetup(
            env={
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": PLACE.url,
                "AWS_REGION": region,
                "AWS_DEFAULT_REGION": region,
            }
        )

    def endpoints(self, credential: Credential) -> Sequence[Endpoint]:
        """Return where SDKs ask for keys. Raises GrantFailed for a role that cannot be one."""
        role_of(credential)
        return (Endpoint(PLACE, Respond("credentials"), self.name),)

    async def respond(self, question: Question, credential: Credential) -> Reply:
        """Answer with the keys of the run's session, or say why there are none."""
        if (refused := refusal(question)) is not None:
            return refused
        try:
            return granted(await self._open().keys(role_of(credential), question.run_id))
        except NoSession as failure:
            return failed(failure)

    def _open(self) -> Sessions:
        from moat_provider_aws.sessions import Sessions  # here, as it imports asyncio

        if self._sessions is None:
            self._sessions = Sessions()
        return self._sessions

    async def _checked(self, arn: str, source: str, host: Host) -> Credential:
        role = parse_role(arn, host.options, host.env.get("AWS_PROFILE", ""))
        if host.validate:
            import asyncio  # here: `moat --help` loads every provider, and must be quick

            endpoint = host.env.get("AWS_ENDPOINT_URL_STS") or host.env.get("AWS_ENDPOINT_URL") or ""
            await asyncio.to_thread(self._assume, role, endpoint)
        if not role.profile and host.env.get(_OWN_KEYS):
            host.say(f"note: runs get keys through your AWS profile; {_OWN_KEYS} of this shell is not kept for them")
        return Credential(self.name, role.arn, source, role.metadata)
