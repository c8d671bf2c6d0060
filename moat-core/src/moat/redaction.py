"""What a secret is known by to who must not hold it: its first bytes, its length and a salted digest. No I/O.

    secret ─▶ "67687030 40 sha256(salt + secret) sha256(salt + its first 24 bytes)"       a mark

The daemon knows credentials and makes marks of them; the process that keeps a run's output knows marks alone. Who has
one can tell whether a text is the secret, and would have to guess the rest of it: hopeless for tokens, not for short
passwords. So marks are kept in memory and never written down.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import field

from moat.api.light import dataclass

REDACTED = "[redacted]"
MIN_SECRET_CHARS = 8  # blotting out shorter strings would garble ordinary text
MAX_MARKS = 128  # more would cost the start of a run a millisecond
BEGIN_BYTES = 4
EARLY_BYTES = 24  # what only begins like a long secret is known for that after so many, and waits for no more
_LONG_BYTES = 2 * EARLY_BYTES  # of a shorter one, a digest of a part would make it easy to guess
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class SecretMarks:
    """Secrets of which only marks are known. salt: hex, another one each time.

    marks: first bytes in hex, length in bytes, digests of the whole and of its first 24 bytes (not of a short one),
    as one text with spaces between.
    """

    salt: str = field(default="", repr=False)
    marks: tuple[str, ...] = field(default=(), repr=False)


def marks_of(secrets: Iterable[str]) -> SecretMarks:
    """Return what secrets are known by. Short ones have no marks, nor has what no program could print."""
    salt = os.urandom(_SALT_BYTES)
    found: list[str] = []
    for secret in dict.fromkeys(secrets):
        if len(secret) < MIN_SECRET_CHARS or not (data := encoded(secret)):
            continue
        early = digest(salt, data[:EARLY_BYTES]) if len(data) >= _LONG_BYTES else ""
        found.append(f"{data[:BEGIN_BYTES].hex()} {len(data)} {digest(salt, data)} {early}")
    return SecretMarks(salt.hex(), tuple(found)) if found else SecretMarks()


def digest(salt: bytes, data: bytes) -> str:
    """Return the digest that a mark has of data, hex."""
    return hashlib.sha256(salt + data).hexdigest()


def encoded(text: str) -> bytes:
    """Return text as a program prints it (PEP 383); nothing for half a character, which none can."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b""
