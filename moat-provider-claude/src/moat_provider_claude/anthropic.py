"""The Anthropic API key. Only declares: `TokenProvider` does the rest."""

from __future__ import annotations

from moat.api import TokenProvider

from moat_provider_claude.usage import read_usage


class Anthropic(TokenProvider):
    """Anthropic API key, from https://console.anthropic.com/settings/keys."""

    name, summary = "anthropic", "Anthropic API key"
    hosts = ("api.anthropic.com",)
    header, prefix = "x-api-key", ""
    variables = ("ANTHROPIC_API_KEY",)
    question = "Anthropic API key"
    check_url = "https://api.anthropic.com/v1/models"  # lists models: costs nothing, unlike a message
    check_headers = (("anthropic-version", "2023-06-01"),)
    placeholder = "sk-ant-api03-moat-placeholder"
    usage = (read_usage("api.anthropic.com", "anthropic"),)
