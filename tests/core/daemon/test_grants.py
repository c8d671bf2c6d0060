from __future__ import annotations

import base64
from pathlib import Path

import pytest
from moat.api.container import ContainerSetup
from moat.api.credentials import Credential
from moat.api.endpoints import Endpoint, EndpointProvider, Forward, ProxyPath, Upstream
from moat.api.errors import GrantMissing, PlanConflict, PluginError, StoreLocked, UsageError
from moat.api.rules import Match, SetHeader
from moat.api.runs import Contribution, RunSpec
from moat.daemon.grants import Grants
from moat.log import REDACTED, Redactor

from core.daemon.making import SECRET, Orchard, Vault


def a_spec(*grants: str) -> RunSpec:
    return RunSpec(workspace=Path("/w"), command=("true",), grants=grants)


def test_a_grant_becomes_rules_placeholders_and_hosts() -> None:
    resolved = Grants(Vault("apple", "pear"), Orchard(), Redactor()).resolve(a_spec("pear", "apple", "pear"))

    assert [rule.grant for rule in resolved.rules] == ["pear", "apple"]
    assert resolved.hosts == ("api.apple.test", "api.pear.test")
    assert resolved.setup.env == {"APPLE_TOKEN": "moat-placeholder", "PEAR_TOKEN": "moat-placeholder"}
    assert SECRET not in repr(resolved)


def test_all_missing_grants_are_named_with_their_lines() -> None:
    with pytest.raises(GrantMissing) as caught:
        Grants(Vault("pear"), Orchard(), Redactor()).resolve(a_spec("apple", "pear", "plum"))

    assert caught.value.problem == "missing grants: apple, plum"
    assert caught.value.hint.splitlines() == ["run: moat grant apple", "run: moat grant plum"]


class Stall(EndpointProvider):
    name, summary = "apple", "endpoints for a test"

    def __init__(self, *prefixes: str) -> None:
        self.prefixes = prefixes

    def endpoints(self, credential: Credential) -> list[Endpoint]:
        rule = SetHeader(Match("a.test"), "X-Key", f"s3cr3t-made-of-{credential.provider}")
        how = Forward(Upstream("a.test", client_certificate="s3cr3t-certificate"), (rule,))
        return [Endpoint(ProxyPath(prefix), how, credential.provider) for prefix in self.prefixes]


def test_a_grant_brings_its_endpoints_and_the_log_learns_their_secrets() -> None:
    plugins, redactor = Orchard(), Redactor()
    plugins.endpoints = {"apple": Stall("/_moat/a/", "/_moat/b/")}
    grants = Grants(Vault("apple", "pear"), plugins, redactor)

    assert [each.where.prefix for each in grants.resolve(a_spec("apple")).endpoints] == ["/_moat/a/", "/_moat/b/"]
    assert grants.resolve(a_spec("pear")).endpoints == ()
    assert redactor.clean("s3cr3t-made-of-apple s3cr3t-certificate") == f"{REDACTED} {REDACTED}"


def test_two_endpoints_at_one_path_refuse_the_run() -> None:
    plugins = Orchard()
    plugins.endpoints = {"apple": Stall("/_moat/a/"), "pear": Stall("/_moat/a/")}
    with pytest.raises(PlanConflict, match="apple and pear both want /_moat/a/"):
        Grants(Vault("apple", "pear"), plugins, Redactor()).resolve(a_spec("apple", "pear"))

    plugins.endpoints = {"apple": Stall("/_moat/a/", "/_moat/a/")}
    with pytest.raises(PluginError, match="one path"):
        Grants(Vault("apple"), plugins, Redactor()).resolve(a_spec("apple"))


@pytest.mark.parametrize("name", ["kiwi", "../apple", "", "Apple"])
def test_an_unknown_grant_is_a_usage_error_even_when_others_are_missing(name: str) -> None:
    with pytest.raises(UsageError):
        Grants(Vault(), Orchard(), Redactor()).resolve(a_spec("apple", name))


def test_without_grants_the_store_is_not_asked() -> None:
    class Locked(Vault):
        def load(self, name: str) -> None:  # type: ignore[override] # it never returns
            raise StoreLocked("the keyring is locked")

    grants = Grants(Locked(), Orchard(), Redactor())  # type: ignore[arg-type] # as above

    assert grants.resolve(a_spec()).rules == ()
    with pytest.raises(StoreLocked):
        grants.resolve(a_spec("apple"))


def test_the_log_learns_a_secret_and_what_is_made_of_it() -> None:
    encoded = base64.b64encode(f"x:{SECRET}".encode()).decode()
    rule = SetHeader(Match("github.test"), "Authorization", f"Basic {encoded}")
    redactor = Redactor()

    Grants(Vault("apple"), Orchard(("plugin", Contribution((rule,)))), redactor).resolve(a_spec("apple"))

    assert redactor.clean(f"{SECRET} and {encoded}") == f"{REDACTED} and {REDACTED}"


def test_what_plugins_contribute_is_joined() -> None:
    rule = SetHeader(Match("extra.test:8443"), "X-Extra", "s3cr3t-extra")
    contribution = Contribution((rule,), ContainerSetup(env={"EXTRA": "1"}))

    resolved = Grants(Vault("apple"), Orchard(("plugin", contribution)), Redactor()).resolve(a_spec("apple"))

    assert resolved.hosts == ("api.apple.test", "extra.test:8443")
    assert resolved.setup.env == {"APPLE_TOKEN": "moat-placeholder", "EXTRA": "1"}


def test_contributors_that_disagree_are_both_named() -> None:
    contribution = Contribution(setup=ContainerSetup(env={"APPLE_TOKEN": "other"}))

    with pytest.raises(PlanConflict, match=r"the grant apple and moat-plugin-x"):
        Grants(Vault("apple"), Orchard(("moat-plugin-x", contribution)), Redactor()).resolve(a_spec("apple"))
