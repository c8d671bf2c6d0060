"""The AWS grant: a role, checked by assuming it. Spent nowhere yet: rules are empty until runs have endpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moat.api import Credential, CredentialProvider, GrantOption, Host, Rule

from moat_provider_aws.role import Role, parse_role
from moat_provider_aws.sts import assume


class Aws(CredentialProvider):
    """An IAM role. Its ARN is what is stored; the user's own AWS credentials never are."""

    name = "aws"
    summary = "AWS: stores and checks an IAM role (runs cannot use it yet)"
    grant_options = (
        GrantOption("role", "ARN of the role to assume", required=True),
        GrantOption("region", "region of the role's sessions (default us-east-1)"),
        GrantOption("session-duration", "how long a session lasts, 15m to 12h (default 15m)"),
        GrantOption("external-id", "external id that the role's trust policy demands"),
        GrantOption("aws-profile", "profile of yours to assume the role with (default AWS_PROFILE)"),
    )

    def __init__(self, assume: Callable[[Role, str], None] = assume) -> None:
        self._assume = assume

    async def grant(self, host: Host) -> Credential:
        """Take the role from --role."""
        return await self._checked(host.options.get("role", ""), "--role", host)

    async def accept(self, secret: str, host: Host) -> Credential:
        """Take the role's ARN from standard input; the other options still count."""
        return await self._checked(secret, "standard input", host)

    def rules(self, credential: Credential) -> Sequence[Rule]:
        """Nothing yet."""
        del credential
        return []

    async def _checked(self, arn: str, source: str, host: Host) -> Credential:
        role = parse_role(arn, host.options, host.env.get("AWS_PROFILE", ""))
        if host.validate:
            import asyncio  # here: `moat --help` loads every provider, and must be quick

            endpoint = host.env.get("AWS_ENDPOINT_URL_STS") or host.env.get("AWS_ENDPOINT_URL") or ""
            await asyncio.to_thread(self._assume, role, endpoint)
        host.say("note: moat can store and check this role today; runs cannot use it yet")
        return Credential(self.name, role.arn, source, role.metadata)
