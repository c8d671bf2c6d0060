"""Anthropic for moat: API keys, Claude subscriptions, and Claude Code as the agent `moat claude`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moat.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat.api import AgentProvider, CredentialProvider


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register the API key and the subscription."""
    from moat_provider_claude.anthropic import Anthropic
    from moat_provider_claude.claude import Claude

    return [Anthropic(), Claude()]


@hookimpl
def moat_agent_providers() -> Iterable[AgentProvider]:
    """Register Claude Code."""
    from moat_provider_claude.agent import ClaudeCode

    return [ClaudeCode()]
