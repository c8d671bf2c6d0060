"""What every credential provider promises, as a pytest class to inherit from.

    class TestGitHub(ProviderContract):
        provider = GitHub()
        secret = "ghp_s3cr3t…"                  # a credential the service would accept
        check_url = "https://api.github.com/user"

Each test says what a user may rely on. Providers that are checked otherwise than by one GET set `check_url = ""` and
test their own check.
"""

# ruff: noqa: S101 # a pytest class: asserting is what it is for

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from typing import ClassVar

from moat.api.container import ContainerSetup
from moat.api.credentials import CapturedTokens, Credential, CredentialProvider
from moat.api.errors import GrantFailed, MoatError
from moat.api.rules import AddHeader, CaptureToken, ReplaceToken, Rule, SetHeader, Sign
from moat.ids import NAME
from moat.testing.host import FakeHost

_COMMANDS = ("list", "show", "revoke")


class ProviderContract:
    """Inherit, set the three attributes, done."""

    provider: ClassVar[CredentialProvider]
    secret: ClassVar[str]
    check_url: ClassVar[str] = ""
    options: ClassVar[Mapping[str, str]] = {}

    def accepted(self) -> Credential:
        """Return a credential of the secret, unchecked."""
        return asyncio.run(self.provider.accept(self.secret, FakeHost(validate=False, options=self.options)))

    def test_it_has_a_name_that_can_be_typed_and_a_summary(self) -> None:
        assert NAME.fullmatch(self.provider.name)
        assert self.provider.name not in _COMMANDS
        assert self.provider.summary.strip()

    def test_its_options_are_named_and_explained(self) -> None:
        for option in self.provider.grant_options:
            assert NAME.fullmatch(option.name)
            assert option.help.strip()

    def test_the_credential_is_filed_under_the_providers_name(self) -> None:
        credential = self.accepted()

        assert credential.provider == self.provider.name
        assert credential.source

    def test_the_secret_is_not_shown_by_repr_or_metadata(self) -> None:
        credential = self.accepted()

        assert credential.secret not in repr(credential)
        assert credential.secret not in repr(dict(credential.metadata))
        assert credential.secret not in repr(self.provider.rules(credential))

    def test_rules_are_pure(self) -> None:
        credential = self.accepted()

        assert list(self.provider.rules(credential)) == list(self.provider.rules(credential))

    def test_rules_are_for_exact_https_hosts_only(self) -> None:
        for rule in self.provider.rules(self.accepted()):
            host = rule.match.authority.partition(":")[0].removeprefix("*." if isinstance(rule, Sign) else "")
            assert host == host.lower().strip()
            assert not set(host) & set("*/@ ")
            assert not rule.match.authority.endswith(":80")

    def test_rules_are_for_hosts_that_it_declares(self) -> None:
        authorities = {rule.match.authority for rule in self.provider.rules(self.accepted())}

        assert authorities <= set(self.provider.hosts)  # what users are told before they grant

    def test_rules_name_the_grant(self) -> None:
        assert {rule.grant for rule in self.provider.rules(self.accepted())} <= {self.provider.name}

    def test_rules_cannot_be_changed(self) -> None:
        for rule in self.provider.rules(self.accepted()):
            try:
                rule.grant = "other"  # type: ignore[misc] # that it cannot be set is the claim
            except FrozenInstanceError:
                continue
            raise AssertionError(f"{rule} can be changed")

    def test_nothing_that_enters_a_run_holds_the_secret(self) -> None:
        credential = self.accepted()
        setup = self.provider.container(credential)

        assert isinstance(setup, ContainerSetup)
        for text in (*setup.env, *setup.env.values(), *setup.files, *setup.files.values()):
            for value in _spent(credential, self.provider.rules(credential)):
                assert value not in text

    def test_tokens_that_a_rule_captures_are_spent_from_then_on_and_not_shown(self) -> None:
        credential = self.accepted()
        for rule in self.provider.rules(credential):
            if isinstance(rule, CaptureToken):
                tokens = {name: f"s3cr3t-captured-{number}" for number, name in enumerate(rule.tokens)}
                after = self.provider.captured(credential, CapturedTokens(tokens))
                sent = _spent(after, self.provider.rules(after))[1:]
                assert after.provider == self.provider.name
                assert [token for token in tokens.values() if token in repr(after)] == []
                assert [token for token in tokens.values() if any(token in value for value in sent)]
                assert not set(rule.tokens.values()) & set(_spent(credential, self.provider.rules(credential)))

    def test_an_empty_secret_is_refused(self) -> None:
        self._refused("  \n", FakeHost(validate=False, options=self.options))

    def test_a_secret_that_could_break_out_of_a_header_is_refused_without_showing_it(self) -> None:
        for bad in (f"{self.secret}\r\nX-Evil: 1", f"{self.secret}\0", f"{self.secret} b", f"{self.secret}\u2028b"):
            failure = self._refused(bad, FakeHost(validate=False, options=self.options))
            assert self.secret not in f"{failure.problem} {failure.hint}"

    def test_a_check_sends_the_secret_to_its_service_only_over_https(self) -> None:
        if not self.check_url:
            return
        host = self._host({self.check_url: 200})

        asyncio.run(self.provider.accept(self.secret, host))

        assert [request.url for request in host.fetched] == [self.check_url]
        assert self.check_url.startswith("https://")
        assert any(self.secret in value for value in host.fetched[0].headers.values())

    def test_a_rejected_secret_yields_no_credential_and_is_not_shown(self) -> None:
        for status in (401, 403, 302, 404, 500) if self.check_url else ():
            failure = self._refused(self.secret, self._host({self.check_url: status}))
            assert self.secret not in f"{failure.problem} {failure.hint}"
            assert "nothing was saved" in failure.problem
            assert failure.hint

    def test_an_unreachable_service_yields_no_credential(self) -> None:
        if self.check_url:
            self._refused(self.secret, self._host({}))

    def test_without_validation_nothing_is_sent_anywhere(self) -> None:
        host = FakeHost(validate=False, options=self.options)

        asyncio.run(self.provider.accept(self.secret, host))

        assert host.fetched == []

    def _host(self, responses: Mapping[str, int]) -> FakeHost:
        return FakeHost(options=self.options, responses=responses)

    def _refused(self, secret: str, host: FakeHost) -> MoatError:
        try:
            asyncio.run(self.provider.accept(secret, host))
        except GrantFailed as failure:
            return failure
        raise AssertionError("the provider made a credential of it")


def _spent(credential: Credential, rules: object) -> list[str]:
    """Return every string that must not enter a run: the secret and what is sent of it."""
    assert isinstance(rules, list | tuple)
    sent: list[Rule] = list(rules)
    spending = SetHeader | AddHeader | ReplaceToken
    return [credential.secret, *(rule.value for rule in sent if isinstance(rule, spending))]
