"""OpenAI for moat: API keys today; ChatGPT log-ins and the `codex` agent later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moat.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat.api import CredentialProvider


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register the API key."""
    from moat_provider_codex.openai import OpenAI

    return [OpenAI()]
