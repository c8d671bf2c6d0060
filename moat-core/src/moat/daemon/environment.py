"""The environment that daemon and worker may have. An allow-list: the caller's tokens stay with the caller."""

from __future__ import annotations

from collections.abc import Mapping

KEPT = ("HOME", "PATH", "LANG", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSL_CERT_FILE")
# Which engine the CLI used: what a lost run left there is removed there. None of these is a secret.
ENGINE = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "CONTAINER_HOST")
# What is moat's own, and means something to daemon or worker. Not MOAT_PROFILE, of one command's: all are served.
OURS = ("MOAT_HOME", "MOAT_KEYRING_BACKEND", "MOAT_BUBBLEWRAP_GATE", "MOAT_DOCKER_DOOR", "MOAT_NO_PROMPT", "MOAT_DEMO")


def reduced(env: Mapping[str, str]) -> dict[str, str]:
    """Return the part of env that is on the lists."""
    return {name: value for name, value in env.items() if name in KEPT + ENGINE + OURS}


def for_daemon(env: Mapping[str, str]) -> dict[str, str]:
    """Return what the daemon itself gets: also what OpenTelemetry is told, which no worker and no provider needs."""
    return reduced(env) | {name: value for name, value in env.items() if name.startswith("OTEL_")}
