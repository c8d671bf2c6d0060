"""OpenAI for moat: API keys, ChatGPT log-ins, and Codex as the agent `moat codex`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moat.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat.api import AgentProvider, CredentialProvider


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register the API key and the login."""
    from moat_provider_codex.codex import Codex
    from moat_provider_codex.openai import OpenAI

    return [Codex(), OpenAI()]


@hookimpl
def moat_agent_providers() -> Iterable[AgentProvider]:
    """Register Codex."""
    from moat_provider_codex.agent import CodexAgent

    return [CodexAgent()]
