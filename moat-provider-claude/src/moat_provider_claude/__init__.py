"""Anthropic for moat: API keys and Claude subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moat.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat.api import CredentialProvider


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register the API key and the subscription."""
    from moat_provider_claude.anthropic import Anthropic
    from moat_provider_claude.claude import Claude

    return [Anthropic(), Claude()]
