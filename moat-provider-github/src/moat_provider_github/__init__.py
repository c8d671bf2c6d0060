"""GitHub for moat: one token, spent on the API as Bearer and on git over HTTPS as Basic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moat.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat.api import CredentialProvider


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register GitHub."""
    from moat_provider_github.provider import GitHub

    return [GitHub()]
