"""AWS for moat: an IAM role that may be assumed on behalf of a run. Stored and checked; not yet spent."""

from __future__ import annotations

from collections.abc import Iterable

from moat.api import CredentialProvider, hookimpl

from moat_provider_aws.provider import Aws


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register AWS."""
    return [Aws()]
