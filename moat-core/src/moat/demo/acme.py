"""What the demo's agent calls, and whose key it needs: a service that does not exist."""

from __future__ import annotations

from moat.api.tokens import TokenProvider

API_HOST = "api.acme.example"


class Acme(TokenProvider):
    """The key of an API that does not exist (RFC 2606 keeps its name free)."""

    name = "acme"
    summary = "an API that exists for the length of a demo"
    hosts = (API_HOST,)
    variables = ("ACME_TOKEN",)
    question = "ACME token"
