"""The envelope of one stored credential: a readable header and a sealed secret, bound together by AES-256-GCM.

    {"header": {version, name, …}, "nonce": …, "sealed": AES-256-GCM(key, nonce, secret, associated data = header)}

The whole header is associated data, so nobody without the key can put one grant's secret under another's name, give it
another source or date, or pass an old version off as a new one. Pure but for the random nonce; knows no files, no keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from typing import TypeAlias

from moat.api.errors import StoreCorrupt

Header: TypeAlias = Mapping[str, object]

VERSION = 1
KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D §8.2: the length GCM is made for; random is safe below 2^32 messages a key


def new_key() -> bytes:
    """Return a fresh 256-bit key."""
    return os.urandom(KEY_BYTES)


def fingerprint(key: bytes) -> str:
    """Return what may be written down about a key to know it again; says nothing about the key itself."""
    return hashlib.sha256(b"moat store key\0" + key).hexdigest()[:16]


def seal(key: bytes, name: str, facts: Header, secret: bytes) -> bytes:
    """Return the file's contents. name and facts stay readable and cannot be changed without the key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header = {**facts, "version": VERSION, "name": name}
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, secret, _canonical(header))
    envelope = {"header": header, "nonce": _text(nonce), "sealed": _text(sealed)}
    return json.dumps(envelope, indent=1, sort_keys=True).encode() + b"\n"


def read_header(name: str, data: bytes) -> dict[str, object]:
    """Return the header without decrypting; it is not proven until `unseal` has succeeded.

    Raises StoreCorrupt when the file is no envelope, was made for another name, or by a newer moat.
    """
    return _parsed(name, data)[0]


def unseal(key: bytes, name: str, data: bytes) -> tuple[dict[str, object], bytes]:
    """Return the proven header and the secret.

    Raises StoreCorrupt when anything about the file was changed or it was sealed with another key.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header, nonce, sealed = _parsed(name, data)
    try:
        return header, AESGCM(key).decrypt(nonce, sealed, _canonical(header))
    except (InvalidTag, ValueError):
        raise _corrupt(name, "it was changed, or sealed with another key") from None


def _parsed(name: str, data: bytes) -> tuple[dict[str, object], bytes, bytes]:
    try:
        envelope = json.loads(data)
        header, nonce, sealed = envelope["header"], _bytes(envelope["nonce"]), _bytes(envelope["sealed"])
        version, owner = header["version"], header["name"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _corrupt(name, "it is not a credential file") from None
    if version != VERSION:
        raise _corrupt(name, f"its format is {version!r}, and this moat reads {VERSION}")
    if owner != name:
        raise _corrupt(name, f"it was made for {owner!r}")
    return header, nonce, sealed


def _canonical(header: Header) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as failure:
        raise ValueError("not base64") from failure


def _corrupt(name: str, why: str) -> StoreCorrupt:
    return StoreCorrupt(f"the stored credential {name} cannot be read: {why}", hint=f"run: moat grant {name}")
