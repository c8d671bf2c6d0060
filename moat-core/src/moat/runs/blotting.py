"""Takes secrets out of what is kept of a run's output, and of its plan, however the pieces are cut. No I/O.

    feed(b"key: s3c") ─▶ b"key: "       feed(b"r3t!\\n") ─▶ b"[redacted]!\\n"      finish() ─▶ b""

Known here are the values of a run's own secrets and of variables whose names speak of credentials, the passwords of its
services, and the marks (`redaction.py`) of what the daemon knows. A terminal that wraps a secret hides it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from moat.ids import TELLING_NAME
from moat.redaction import BEGIN_BYTES, EARLY_BYTES, MIN_SECRET_CHARS, REDACTED, SecretMarks, digest, encoded

if TYPE_CHECKING:
    from moat.runs.plan import RunPlan

_FETCHED = "://"  # in the origin of a variable whose value moat.yaml refers to
_OWN = ("-e", "moat.yaml")
_MASK = REDACTED.encode()
_NONE, _UNDECIDED = 0, -1
_Known = tuple[int, bytes, bytes, str, str]  # length; all of it, or salt and digests of it and of its first bytes


class Blotter:
    """One stream of output. secrets: whole ones; known: such as only marks are known of."""

    def __init__(self, secrets: Iterable[str] = (), known: SecretMarks | None = None) -> None:
        self._known: dict[bytes, list[_Known]] = {}
        for secret in dict.fromkeys(secrets):
            if len(secret) >= MIN_SECRET_CHARS and (data := encoded(secret)):
                self._known.setdefault(data[:BEGIN_BYTES], []).append((len(data), data, b"", "", ""))
        marks = known or SecretMarks()
        salt = bytes.fromhex(marks.salt)
        for mark in marks.marks:
            begin, length, whole, early, *_ = mark.split(" ")
            self._known.setdefault(bytes.fromhex(begin), []).append((int(length), b"", salt, whole, early))
        for each in self._known.values():
            each.sort(reverse=True)  # one may begin with another
        self._halves = {begin[:count] for begin in self._known for count in range(1, BEGIN_BYTES)}
        self._pattern: re.Pattern[bytes] | None = None
        self._tail = b""

    def may_change(self, data: bytes) -> bool:
        """Return whether data holds the beginning of a secret."""
        return any(begin in data for begin in self._known)

    def feed(self, data: bytes) -> bytes:
        """Return what may be kept now; a tail that may begin a secret, or a longer one, waits."""
        return self._take(data, is_last=False) if self._known else data

    def finish(self) -> bytes:
        """Return what waited."""
        return self._take(b"", is_last=True) if self._tail else b""

    def _take(self, data: bytes, *, is_last: bool) -> bytes:
        if self._pattern is None:  # not before anything is printed: many of them take a millisecond
            self._pattern = re.compile(b"|".join(map(re.escape, self._known)))
        raw, out, done, at = self._tail + data, bytearray(), 0, 0
        while found := self._pattern.search(raw, at):
            start = found.start()
            length = self._length_at(raw, start, found.group(), is_last)
            if length == _UNDECIDED:
                end = start
                break
            at = start + max(length, 1)
            if length:
                out += raw[done:start] + _MASK
                done = at
        else:
            end = len(raw) if is_last else self._undecided_end(raw, done)
        self._tail = raw[end:]
        return bytes(out + raw[done:end]) if done else raw[:end]

    def _length_at(self, raw: bytes, start: int, begin: bytes, is_last: bool) -> int:
        """Return the length of the longest secret at start, _NONE, or _UNDECIDED while it may still be one."""
        for length, secret, salt, whole, early in self._known[begin]:
            window = raw[start : start + length]
            if secret and not secret.startswith(window):
                continue
            if early and len(window) >= EARLY_BYTES and digest(salt, window[:EARLY_BYTES]) != early:
                continue
            if len(window) < length:
                if not is_last:
                    return _UNDECIDED
            elif secret or digest(salt, window) == whole:
                return length
        return _NONE

    def _undecided_end(self, raw: bytes, done: int) -> int:
        """Return where the end of raw begins that may be the first bytes of a secret."""
        for start in range(max(done, len(raw) - BEGIN_BYTES + 1), len(raw)):
            if raw[start:] in self._halves:
                return start
        return len(raw)


def blotted(text: str, blotter: Blotter) -> str:
    """Return text without secrets. blotter: to which nothing is fed otherwise."""
    data = encoded(text)
    if not blotter.may_change(data):
        return text
    return (blotter.feed(data) + blotter.finish()).decode("utf-8", "surrogateescape")


def secrets_of(plan: RunPlan) -> tuple[str, ...]:
    """Return the secrets that a run is given, which its command may print."""
    own = (
        value
        for name, value in plan.sandbox.env.items()
        if _FETCHED in (owner := plan.origins.get(name, "")) or (owner in _OWN and TELLING_NAME.search(name))
    )
    of_services = (secret for service in plan.sandbox.services for secret in service.secrets)
    return tuple(dict.fromkeys((*own, *of_services)))
