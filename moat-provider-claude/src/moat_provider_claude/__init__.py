"""Anthropic for moat: API keys today; Claude subscriptions and the `claude` agent later."""

from __future__ import annotations

from collections.abc import Iterable

from moat.api import CredentialProvider, hookimpl

from moat_provider_claude.anthropic import Anthropic


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register the API key."""
    return [Anthropic()]
