"""The contract finds what it is there to find: each broken provider fails the test that names its fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from moat.api import (
    CapturedTokens,
    CaptureToken,
    ContainerSetup,
    Credential,
    Host,
    Match,
    Rule,
    SetHeader,
    TokenProvider,
)
from moat.testing import ProviderContract

SECRET = "key-s3cr3t"


class Good(TokenProvider):
    name, summary = "good", "a good provider"
    hosts = ("api.example.com",)
    variables = ("GOOD_KEY",)
    question = "key"
    check_url = "https://api.example.com/check"


class Leaking(Good):
    def container(self, credential: Credential) -> ContainerSetup:
        return ContainerSetup(env={"GOOD_KEY": credential.secret})


class Plain(Good):
    hosts = ("api.example.com:80",)


class Wide(Good):
    hosts = ("*.example.com",)


class Gullible(Good):
    async def accept(self, secret: str, host: Host) -> Credential:
        return Credential(self.name, secret, "standard input")


class Misfiled(Good):
    async def accept(self, secret: str, host: Host) -> Credential:
        return Credential("github", secret, "standard input")


class Told(Good):
    async def accept(self, secret: str, host: Host) -> Credential:
        return Credential(self.name, secret, "standard input", {"token": secret})


class Reserved(Good):
    name = "list"


class Anonymous(Good):
    def rules(self, credential: Credential) -> Sequence[Rule]:
        return [SetHeader(Match("api.example.com"), "Authorization", credential.secret, "another")]


class Elsewhere(Good):
    def rules(self, credential: Credential) -> Sequence[Rule]:
        return [SetHeader(Match("undeclared.example.com"), "Authorization", credential.secret, self.name)]


class Renewed(Good):
    """Keeps what is captured as its secret."""

    def rules(self, credential: Credential) -> Sequence[Rule]:
        at_tokens = Match("api.example.com", ("POST",), ("/token",))
        return [*super().rules(credential), CaptureToken(at_tokens, self.name, {}, {"access_token": self.placeholder})]

    def captured(self, credential: Credential, tokens: CapturedTokens) -> Credential:
        return replace(credential, secret=tokens.tokens["access_token"])


class Forgetful(Renewed):
    def captured(self, credential: Credential, tokens: CapturedTokens) -> Credential:
        return credential


class Talkative(Renewed):
    def captured(self, credential: Credential, tokens: CapturedTokens) -> Credential:
        return replace(super().captured(credential, tokens), metadata=tokens.tokens)


def contract_for(kind: type[Good]) -> ProviderContract:
    class Contract(ProviderContract):
        provider = kind()
        secret = SECRET
        check_url = Good.check_url

    return Contract()


def promises(contract: ProviderContract) -> dict[str, Callable[[], None]]:
    return {name: getattr(contract, name) for name in dir(contract) if name.startswith("test_")}


@pytest.mark.parametrize("kind", [Good, Renewed])
def test_a_good_provider_keeps_every_promise(kind: type[Good]) -> None:
    for promise in promises(contract_for(kind)).values():
        promise()


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (Leaking, "test_nothing_that_enters_a_run_holds_the_secret"),
        (Plain, "test_rules_are_for_exact_https_hosts_only"),
        (Wide, "test_rules_are_for_exact_https_hosts_only"),
        (Gullible, "test_an_empty_secret_is_refused"),
        (Gullible, "test_a_secret_that_could_break_out_of_a_header_is_refused_without_showing_it"),
        (Gullible, "test_a_rejected_secret_yields_no_credential_and_is_not_shown"),
        (Gullible, "test_an_unreachable_service_yields_no_credential"),
        (Misfiled, "test_the_credential_is_filed_under_the_providers_name"),
        (Told, "test_the_secret_is_not_shown_by_repr_or_metadata"),
        (Reserved, "test_it_has_a_name_that_can_be_typed_and_a_summary"),
        (Anonymous, "test_rules_name_the_grant"),
        (Elsewhere, "test_rules_are_for_hosts_that_it_declares"),
        (Forgetful, "test_tokens_that_a_rule_captures_are_spent_from_then_on_and_not_shown"),
        (Talkative, "test_tokens_that_a_rule_captures_are_spent_from_then_on_and_not_shown"),
    ],
)
def test_a_broken_provider_fails_the_promise_it_breaks(kind: type[Good], promise: str) -> None:
    with pytest.raises(AssertionError):
        promises(contract_for(kind))[promise]()
