"""Signed heads: who holds the key says up to where a chain went, and as the how-manieth it said so. No I/O.

    statement = canonical {"v": 1, "chain", "seq", "hash", "counter", "at"}    and, of the installation's chain, "live":
    signature = Ed25519 over "moat audit head\\n" + statement                   {run: [seq, hash]} of every open run

All heads of one sealing have the same counter, which only grows. Through `live` the installation's head vouches for the
runs that are not over; those that are stand in its chain. So one signature vouches for everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moat.audit.canonical import canonical, parsed
from moat.audit.chain import INSTALLATION, Tip

VERSION = 1
KEY_BYTES = 32  # of an Ed25519 seed, and of a public key (RFC 8032 §5.1.5)
_CONTEXT = b"moat audit head\n"


@dataclass(frozen=True, slots=True)
class Head:
    """What is signed. live: the tips of the runs that were not over then; in the installation's head only."""

    chain: str
    tip: Tip
    counter: int
    at: str
    live: Mapping[str, Tip] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signed:
    """A head as it is kept. statement: canonical JSON. signature: hex."""

    chain: str
    statement: str
    signature: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """What is remembered apart from the log: the latest counter, and where the installation's chain was then."""

    counter: int = 0
    tip: Tip = field(default_factory=Tip)


def public_key_of(seed: bytes) -> str:
    """Return the public key, hex, that belongs to a private one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()


def sign(seed: bytes, head: Head) -> Signed:
    """Return head, signed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    statement = canonical(_as_object(head))
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(_CONTEXT + statement)
    return Signed(head.chain, statement.decode(), signature.hex())


def read(signed: Signed) -> Head:
    """Return what a statement says; nothing of it is proven. Raises ValueError."""
    try:
        said = parsed(signed.statement)
        if said["v"] != VERSION:
            raise ValueError("its format is not known here")
        live = {str(run): Tip(int(seq), str(digest)) for run, (seq, digest) in said.get("live", {}).items()}
        tip = Tip(int(said["seq"]), str(said["hash"]))
        return Head(str(said["chain"]), tip, int(said["counter"]), str(said["at"]), live)
    except (KeyError, TypeError, AttributeError):
        raise ValueError("it lacks something") from None


def is_signed_by(public_key: str, signed: Signed) -> bool:
    """Return whether the owner of the key, hex, signed this."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signed.signature), _CONTEXT + signed.statement.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _as_object(head: Head) -> dict[str, object]:
    said: dict[str, object] = {"v": VERSION, "chain": head.chain, "seq": head.tip.seq, "hash": head.tip.hash,
                               "counter": head.counter, "at": head.at}  # fmt: skip
    if head.chain == INSTALLATION:
        said["live"] = {run: [tip.seq, tip.hash] for run, tip in head.live.items()}
    return said
