"""The Anthropic API key. Only declares, but for one thing: where a login is sent, the key stays outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moat.api import Credential, Match, Rule, SetHeader, TokenProvider

from moat_provider_claude.placeholders import KEY, KEY_VARIABLE
from moat_provider_claude.usage import read_usage


class Anthropic(TokenProvider):
    """Anthropic API key, from https://console.anthropic.com/settings/keys."""

    name, summary = "anthropic", "Anthropic API key"
    hosts = ("api.anthropic.com",)
    header, prefix = "x-api-key", ""
    variables = (KEY_VARIABLE,)
    question = "Anthropic API key"
    check_url = "https://api.anthropic.com/v1/models"  # lists models: costs nothing, unlike a message
    check_headers = (("anthropic-version", "2023-06-01"),)
    placeholder = KEY
    usage = (read_usage("api.anthropic.com", "anthropic"),)

    def rules(self, credential: Credential) -> Sequence[Rule]:
        """Set the key, unless the client sends a login: the service must never get both."""
        match = Match(self.hosts[0], unless_header="Authorization")
        usage = (replace(each, match=replace(each.match, unless_header="Authorization")) for each in self.usage)
        return [SetHeader(match, self.header, credential.secret, self.name), *usage]
