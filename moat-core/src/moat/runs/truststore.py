"""Turns certificates into the trust store that Java reads: PKCS#12 (RFC 7292) without a password. Pure: text to bytes.

Certificates are public, so nothing is encrypted or signed: a store without a MAC is what a JVM of any version opens
when no password is set. Written out here because the command line loads no cryptography library: that takes longer
than all of planning.

    PFX ── data ── authenticated safe ── data ── safe contents ── bag, bag, …   one a certificate, marked as trusted
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

_BASE64 = re.compile(r"-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")

_INTEGER, _OCTETS, _OID, _TEXT, _SEQUENCE, _SET, _EXPLICIT = 0x02, 0x04, 0x06, 0x1E, 0x30, 0x31, 0xA0


def trust_store(certificates: str) -> bytes:
    """Return a PKCS#12 file in which each of certificates (PEM) is a trusted one."""
    bags = (_bag(number, certificate) for number, certificate in enumerate(_decoded(certificates), 1))
    return _der(_SEQUENCE, _der(_INTEGER, b"\3"), _data(_der(_SEQUENCE, _data(_der(_SEQUENCE, *bags)))))


def _decoded(certificates: str) -> Iterator[bytes]:
    """Yield what stands in certificates. Damaged ones are left out: a JVM opens no store with one in it."""
    for text in _BASE64.findall(certificates):
        try:
            certificate = base64.b64decode(text)
        except binascii.Error:
            continue
        if certificate[:2] == b"\x30\x82" and len(certificate) == 4 + int.from_bytes(certificate[2:4], "big"):
            yield certificate


def _bag(number: int, certificate: bytes) -> bytes:
    content = _der(_SEQUENCE, _X509, _der(_EXPLICIT, _der(_OCTETS, certificate)))
    name = _attribute(_FRIENDLY_NAME, _der(_TEXT, f"moat {number}".encode("utf-16-be")))
    return _der(_SEQUENCE, _CERTIFICATE_BAG, _der(_EXPLICIT, content), _der(_SET, name, _attribute(_TRUSTED, _ANY_USE)))


def _attribute(kind: bytes, value: bytes) -> bytes:
    return _der(_SEQUENCE, kind, _der(_SET, value))


def _data(content: bytes) -> bytes:
    """Return a ContentInfo of kind `data`: content in the clear."""
    return _der(_SEQUENCE, _DATA, _der(_EXPLICIT, _der(_OCTETS, content)))


def _der(tag: int, *parts: bytes) -> bytes:
    """Return one element (X.690 §8.1, definite length)."""
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def _oid(text: str) -> bytes:
    """Return an object identifier (X.690 §8.19)."""
    first, second, *rest = map(int, text.split("."))
    content = bytearray()
    for number in (first * 40 + second, *rest):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(0x80 | number & 0x7F)
        content += bytes(reversed(digits))
    return _der(_OID, bytes(content))


_DATA = _oid("1.2.840.113549.1.7.1")
_CERTIFICATE_BAG = _oid("1.2.840.113549.1.12.10.1.3")
_X509 = _oid("1.2.840.113549.1.9.22.1")
_FRIENDLY_NAME = _oid("1.2.840.113549.1.9.20")
_TRUSTED = _oid("2.16.840.1.113894.746875.1.1")  # Java's own; without it a certificate is there but not trusted
_ANY_USE = _oid("2.5.29.37.0")
