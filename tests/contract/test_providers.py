"""Every installed provider has a contract test, and all of them get along in one run."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from moat.api import AddHeader, Credential, CredentialProvider, ReplaceToken, SetHeader
from moat.api.container import merge
from moat.plugins.manager import Plugins
from moat.testing import ProviderContract

PROVIDERS = Path(__file__).parents[1] / "providers"


def contracts() -> list[type[ProviderContract]]:
    found = []
    for path in sorted(PROVIDERS.glob("*/test_*.py")):
        module = import_module(f"providers.{path.parent.name}.{path.stem}")
        found += [value for value in vars(module).values() if isinstance(value, type)]
    return [kind for kind in found if issubclass(kind, ProviderContract) and kind is not ProviderContract]


def installed() -> list[CredentialProvider]:
    return [
        offer.value
        for offer in Plugins.load().credential_offers()
        if offer.plugin.distribution.startswith("moat-provider-")
    ]


@pytest.mark.parametrize("provider", installed(), ids=lambda provider: provider.name)
def test_a_provider_has_a_contract_test(provider: CredentialProvider) -> None:
    assert provider.name in {contract.provider.name for contract in contracts()}


def test_all_grants_together_make_one_run() -> None:
    setups, claimed = [], set()
    for contract in contracts():
        credential: Credential = contract().accepted()
        setups.append((contract.provider.name, contract.provider.container(credential)))
        for rule in contract.provider.rules(credential):
            if not isinstance(rule, SetHeader | AddHeader | ReplaceToken):
                continue  # spends nothing
            claim = (rule.match, rule.placeholder if isinstance(rule, ReplaceToken) else rule.name)
            assert claim not in claimed
            claimed.add(claim)

    assert merge(setups).env["GH_TOKEN"]
