"""The environment that daemon and worker may have. An allow-list: the caller's tokens stay with the caller."""

from __future__ import annotations

from collections.abc import Mapping

KEPT = ("HOME", "PATH", "LANG", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSL_CERT_FILE")
# Which engine the CLI used: what a lost run left there is removed there. None of these is a secret.
ENGINE = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
PREFIX = "MOAT_"
PROFILE = "MOAT_PROFILE"  # of one command's; the daemon serves all of them


def reduced(env: Mapping[str, str]) -> dict[str, str]:
    """Return the part of env that is on the list."""
    return {name: value for name, value in env.items() if name in KEPT + ENGINE or _is_ours(name)}


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) and name != PROFILE
