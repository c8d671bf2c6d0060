"""AWS for moat: an IAM role that may be assumed on behalf of a run. A run has the keys of its session."""

from __future__ import annotations

from collections.abc import Iterable

from moat.api import CredentialProvider, EndpointProvider, hookimpl

from moat_provider_aws.provider import Aws

_AWS = Aws()  # one: it keeps the sessions of runs


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register AWS."""
    return [_AWS]


@hookimpl
def moat_endpoint_providers() -> Iterable[EndpointProvider]:
    """Register where runs ask for keys."""
    return [_AWS]
