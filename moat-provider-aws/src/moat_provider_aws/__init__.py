"""AWS for moat: an IAM role that may be assumed on behalf of a run. A run has the keys of its session."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from moat.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat.api import CredentialProvider, EndpointProvider

    from moat_provider_aws.provider import Aws


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Register AWS."""
    return [_aws()]


@hookimpl
def moat_endpoint_providers() -> Iterable[EndpointProvider]:
    """Register where runs ask for keys."""
    return [_aws()]


@functools.cache  # one: it keeps the sessions of runs
def _aws() -> Aws:
    from moat_provider_aws.provider import Aws

    return Aws()
