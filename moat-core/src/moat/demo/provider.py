"""The demo's own credential provider. It exists only in the processes of a demo (MOAT_DEMO=1), in a home of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable

from moat.api.credentials import CredentialProvider
from moat.api.hookspecs import hookimpl
from moat.api.tokens import TokenProvider

VARIABLE = "MOAT_DEMO"
API_HOST = "api.acme.example"


class Acme(TokenProvider):
    """The key of an API that does not exist (RFC 2606 keeps its name free)."""

    name = "acme"
    summary = "an API that exists for the length of a demo"
    hosts = (API_HOST,)
    variables = ("ACME_TOKEN",)
    question = "ACME token"


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Offer the provider to a demo, and nothing to anybody else."""
    return [Acme()] if os.environ.get(VARIABLE) == "1" else []
