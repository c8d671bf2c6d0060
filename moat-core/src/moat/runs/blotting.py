"""Takes the secrets that a run was given out of what is kept of its output, however its pieces are cut. No I/O.

    feed(b"key: s3c") ─▶ b"key: "       feed(b"r3t!\\n") ─▶ b"[redacted]!\\n"      finish() ─▶ b""

Known here are the values of a run's own secrets and of variables whose names speak of credentials, and the passwords of
its services. Stored credentials are not: no process of the run's has them. A terminal that wraps one hides it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from moat.ids import TELLING_NAME
from moat.log import MIN_SECRET_CHARS, REDACTED

if TYPE_CHECKING:
    from moat.runs.plan import RunPlan

_FETCHED = "://"  # in the origin of a variable whose value moat.yaml refers to
_OWN = ("-e", "moat.yaml")
_MASK = REDACTED.encode()


class Blotter:
    """One stream of output."""

    def __init__(self, secrets: Iterable[str]) -> None:
        wanted = {secret.encode("utf-8", "surrogateescape") for secret in secrets if len(secret) >= MIN_SECRET_CHARS}
        self._secrets = sorted(wanted, key=len, reverse=True)  # one may begin with another
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets)))
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Return what may be kept now; a tail that may begin a secret, or a longer one, waits."""
        if not self._secrets:
            return data
        raw, out, at = self._tail + data, bytearray(), 0
        cut = len(raw) - max(_overlap(raw, secret) for secret in self._secrets)
        for found in self._pattern.finditer(raw):
            if found.start() >= cut:
                break
            out += raw[at : found.start()] + _MASK
            at = found.end()
        end = max(cut, at)
        self._tail = raw[end:]
        return bytes(out + raw[at:end])

    def finish(self) -> bytes:
        """Return what waited."""
        rest, self._tail = self._tail, b""
        return self._pattern.sub(_MASK, rest) if self._secrets else rest


def secrets_of(plan: RunPlan) -> tuple[str, ...]:
    """Return the secrets that a run is given, which its command may print."""
    own = (
        value
        for name, value in plan.sandbox.env.items()
        if _FETCHED in (owner := plan.origins.get(name, "")) or (owner in _OWN and TELLING_NAME.search(name))
    )
    of_services = (secret for service in plan.sandbox.services for secret in service.secrets)
    return tuple(dict.fromkeys((*own, *of_services)))


def _overlap(data: bytes, secret: bytes) -> int:
    """Return the length of the longest end of data that is a beginning of secret, and not all of it."""
    for count in range(min(len(secret) - 1, len(data)), 0, -1):
        if data.endswith(secret[:count]):
            return count
    return 0
