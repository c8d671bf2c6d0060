from __future__ import annotations

from collections.abc import Sequence

import pytest
from moat.api import (
    CommandResult,
    ContainerSetup,
    Credential,
    CredentialProvider,
    Host,
    HttpRequest,
    HttpResponse,
    Rule,
)
from moat.testing import FakeHost

SECRET = "ghp_s3cr3t"


class Smallest(CredentialProvider):
    name, summary = "smallest", "no more than it must"

    async def grant(self, host: Host) -> Credential:
        return Credential(self.name, await host.ask("token"), "prompt")

    async def accept(self, secret: str, host: Host) -> Credential:
        return Credential(self.name, secret, "standard input")

    def rules(self, credential: Credential) -> Sequence[Rule]:
        return []


@pytest.mark.parametrize(
    "value",
    [
        Credential("github", SECRET, "gh"),
        CommandResult(0, SECRET, ""),
        HttpRequest("GET", "https://a", {"Authorization": SECRET}, SECRET.encode()),
        HttpResponse(200, {}, SECRET.encode()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_value_shows_its_secret(value: object) -> None:
    assert SECRET not in repr(value)
    assert SECRET not in str(value)


def test_a_provider_must_say_how_to_obtain_accept_and_spend() -> None:
    assert CredentialProvider.__abstractmethods__ == {"grant", "accept", "rules"}


async def test_a_provider_puts_nothing_into_a_run_unless_it_says_so() -> None:
    credential = await Smallest().grant(FakeHost(answers=[SECRET]))

    assert Smallest().container(credential) == ContainerSetup()
    assert Smallest.grant_options == ()
