from __future__ import annotations

import pytest
from moat.demo.provider import VARIABLE, moat_credential_providers


def test_nobody_but_a_demo_is_offered_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(moat_credential_providers()) == []

    monkeypatch.setenv(VARIABLE, "1")

    assert [provider.name for provider in moat_credential_providers()] == ["acme"]
