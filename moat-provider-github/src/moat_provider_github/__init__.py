"""GitHub for moat: one token, spent on the API as Bearer and on git over HTTPS as Basic."""

from __future__ import annotations

from collections.abc import Iterable

from moat.api import CredentialProvider, hookimpl

from moat_provider_github.provider import GitHub


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register GitHub."""
    return [GitHub()]
