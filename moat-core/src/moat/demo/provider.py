"""The demo's own credential provider. It exists only in the processes of a demo (MOAT_DEMO=1), in a home of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from moat.api.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat.api.credentials import CredentialProvider

VARIABLE = "MOAT_DEMO"


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Offer the provider to a demo, and nothing to anybody else."""
    if os.environ.get(VARIABLE) != "1":
        return []
    from moat.demo.acme import Acme

    return [Acme()]
