"""A provider whose tokens are each good for one renewal, as a plugin of an installation of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from support.installation import Installation
from support.plugged import plugged

HOST, TOKENS_HOST = "api.example.com", "auth.example.com"
_SOURCE = """
import json
from moat.api import (Credential, CredentialProvider, GrantFailed, GrantRevoked, HttpRequest, Match, SetHeader,
                      hookimpl)

class Rotating(CredentialProvider):
    name = "rotating"
    summary = "for tests"
    refresh_every_s = EVERY_S

    async def grant(self, host):
        raise GrantFailed("not here")

    async def accept(self, secret, host):
        return Credential("rotating", secret, "standard input")

    def rules(self, credential):
        return [SetHeader(Match("HOST"), "Authorization", "Bearer " + credential.secret, "rotating")]

    async def refresh(self, credential, host):
        body = json.dumps({"refresh_token": credential.secret}).encode()
        answer = await host.fetch(HttpRequest("POST", "https://TOKENS/token", {}, body))
        if answer.status == 400:
            raise GrantRevoked("the token was spent twice")
        if answer.status != 200:
            raise GrantFailed(f"HTTP {answer.status}")
        return Credential("rotating", json.loads(answer.body)["access_token"], credential.source)

@hookimpl
def moat_credential_providers():
    return [Rotating()]
"""


@contextlib.contextmanager
def rotating(every_s: float) -> Iterator[Installation]:
    """Make an installation with this provider. every_s: between two renewals of a token."""
    source = _SOURCE.replace("EVERY_S", repr(every_s)).replace("HOST", HOST).replace("TOKENS", TOKENS_HOST)
    with plugged("moat-provider-rotating", source, {"moat": {"rotating": "moat_provider_rotating"}}) as made:
        yield made


def token_of(owner: str) -> str:
    """Return the token that an owner begins with."""
    return f"tok-s3cr3t-{owner}-0"
