"""AWS for moat: requests signed as an IAM role, or its keys for a run; and parameters as secrets."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from moat.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat.api import CredentialProvider, EndpointProvider, SecretSource

    from moat_provider_aws.provider import Aws


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register AWS."""
    return [_aws()]


@hookimpl
def moat_endpoint_providers() -> Iterable[EndpointProvider]:
    """Register where runs ask for keys."""
    return [_aws()]


@hookimpl
def moat_secret_sources() -> Iterable[SecretSource]:
    """Register parameters of Systems Manager."""
    from moat_provider_aws.parameters import Parameters

    return [Parameters()]


@functools.cache  # one: it keeps the sessions of runs
def _aws() -> Aws:
    from moat_provider_aws.provider import Aws

    return Aws()
