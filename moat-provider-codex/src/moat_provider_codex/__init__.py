"""OpenAI for moat: API keys today; ChatGPT log-ins and the `codex` agent later."""

from __future__ import annotations

from collections.abc import Iterable

from moat.api import CredentialProvider, hookimpl

from moat_provider_codex.openai import OpenAI


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register the API key."""
    return [OpenAI()]
