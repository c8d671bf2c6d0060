"""Who is meant by a Host header: an endpoint of an agent, or this machine itself. Pure.

    web.calm-otter.localhost:8080 ─▶ (calm-otter, web)      calm-otter.localhost:8080 ─▶ its index
    localhost:8080, 127.0.0.1:8080 ─▶ the index             anything else ─▶ refused

A page of somewhere else can have its own name resolve to 127.0.0.1 (DNS rebinding): its requests still carry that name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from moat.api.errors import UsageError

OURS = ("localhost", "127.0.0.1", "[::1]")
ROOT = "localhost"
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Named:
    """What a Host header names. host: as it was written, in lower case, without a port. Empty parts: the index."""

    host: str
    agent: str = ""
    endpoint: str = ""


class ForeignHost(ValueError):
    """A Host header that names nothing of ours."""


def named(host: str, port: int) -> Named:
    """Return what a Host header names. port: ours. Raises ForeignHost."""
    name, number = _split(host.lower())
    if number not in ("", str(port)):
        raise ForeignHost(f"this is port {port}")
    name = name.removesuffix(".")
    if name in OURS:
        return Named(name)
    labels = name.split(".")
    if labels[-1] != ROOT or not 2 <= len(labels) <= 3 or not all(map(_LABEL.fullmatch, labels)):
        raise ForeignHost(f"only names below {ROOT} are served here")
    return Named(name, labels[-2], labels[0] if len(labels) == 3 else "")


def checked_label(text: str, what: str) -> str:
    """Return text if it can be a part of a host name; raise UsageError, saying what it should name, otherwise."""
    if _LABEL.fullmatch(text) is None:
        hint = "use lower-case letters, digits and -, not at the ends, at most 63 characters"
        raise UsageError(f"{text!r} cannot name {what} in an address", hint=hint)
    return text


def url_of(agent: str, endpoint: str, port: int, scheme: str = "http") -> str:
    """Return where an endpoint is reached."""
    return f"{scheme}://{endpoint}.{agent}.{ROOT}:{port}/"


def _split(host: str) -> tuple[str, str]:
    """Return name and port; both as written. Raises ForeignHost for what is no host."""
    match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]/@\s]+)(?::([0-9]{1,5}))?", host)
    if match is None:
        raise ForeignHost("the Host header is no host")
    return match[1], match[2] or ""
