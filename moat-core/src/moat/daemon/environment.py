"""The environment that daemon and worker may have. An allow-list: the caller's tokens stay with the caller."""

from __future__ import annotations

from collections.abc import Mapping

KEPT = ("HOME", "PATH", "LANG", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSL_CERT_FILE")
PREFIX = "MOAT_"


def reduced(env: Mapping[str, str]) -> dict[str, str]:
    """Return the part of env that is on the list."""
    return {name: value for name, value in env.items() if name in KEPT or name.startswith(PREFIX)}
