"""The OpenAI API key. Only declares: `TokenProvider` does the rest."""

from __future__ import annotations

from moat.api import TokenProvider

from moat_provider_codex.placeholders import KEY, KEY_VARIABLES
from moat_provider_codex.usage import read_usage


class OpenAI(TokenProvider):
    """OpenAI API key, from https://platform.openai.com/api-keys."""

    name, summary = "openai", "OpenAI API key"
    hosts = ("api.openai.com",)
    variables = KEY_VARIABLES
    question = "OpenAI API key"
    check_url = "https://api.openai.com/v1/models"
    placeholder = KEY
    usage = (read_usage("api.openai.com", "openai"),)
