"""The installation's certificate authority, and the leaves it signs for intercepted hosts.

The key stays in the CA's folder (0600), the daemon and the worker; only the public certificate enters a run. Leaves
name exactly one host and live a week; all share one key, made anew with every worker.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moat.api.errors import DaemonError
from moat.net.authority import is_address
from moat.paths import write_private

CA_VALID = timedelta(days=365)
LEAF_VALID = timedelta(days=7)
BACKDATED = timedelta(hours=1)  # clocks inside and outside need not agree to the minute

_MAX_COMMON_NAME = 64  # RFC 5280 appendix A: longer host names stand in the SAN only


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> str:
        """The public certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        """The private key, for the CA's file and the worker only."""
        return private_pem(self.key).decode()


def load_or_make(folder: Path, now: datetime | None = None) -> CertificateAuthority:
    """Return the installation's CA, made on first use. Raises DaemonError, with the fix as its hint."""
    now = now or datetime.now(UTC)
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not certificate.exists() and not key.exists():
        made = make(now)
        write_private(key, made.key_pem.encode())
        write_private(certificate, made.certificate_pem.encode())
        return made
    for path in (certificate, key):
        if not path.exists():
            raise DaemonError(f"{path} is missing beside its other half", hint=_remake(folder))
    if stat.S_IMODE(key.stat().st_mode) & 0o077:
        raise DaemonError(
            f"{key} can be read by others", hint=f"run: chmod 600 {key}; if it was shared, {_remake(folder)}"
        )
    if key.stat().st_uid != os.geteuid():
        raise DaemonError(f"{key} belongs to another user", hint=f"run: chown {os.geteuid()} {key}")
    return _checked(certificate.read_text(), key.read_text(), now, folder)


def make(now: datetime) -> CertificateAuthority:
    """Return a fresh CA, valid for a year."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"moat CA {now:%Y-%m-%d}")])
    certificate = (
        _builder(name, name, key.public_key(), now, now + CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(certificate, key)


def load(certificate_pem: str, key_pem: str) -> CertificateAuthority:
    """Return the CA that two PEM texts hold. Raises DaemonError when they are none or do not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), None)
    except (ValueError, TypeError):
        raise DaemonError("the CA's certificate or key is not PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise DaemonError("the CA's certificate and key do not belong together")
    return CertificateAuthority(certificate, key)


def leaf(ca: CertificateAuthority, host: str, key: ec.EllipticCurvePublicKey, now: datetime) -> str:
    """Return a server certificate for exactly host, PEM. host: canonical name or IP literal, never a wildcard."""
    common = [x509.NameAttribute(NameOID.COMMON_NAME, host)] if len(host) <= _MAX_COMMON_NAME else []
    end = min(now + LEAF_VALID, ca.certificate.not_valid_after_utc)
    certificate = (
        _builder(x509.Name(common), ca.certificate.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_subject(host)]), critical=not common)  # RFC 5280 §4.2.1.6
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as unencrypted PKCS 8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _checked(certificate: str, key: str, now: datetime, folder: Path) -> CertificateAuthority:
    try:
        ca = load(certificate, key)
    except DaemonError as broken:
        raise DaemonError(f"{folder}: {broken.problem}", hint=_remake(folder)) from None
    if ca.certificate.not_valid_after_utc <= now:
        raise DaemonError(f"the CA in {folder} has expired", hint=_remake(folder))
    return ca


def _remake(folder: Path) -> str:
    return f"stop all runs, then: rm -r {folder}; the next run makes a new CA"


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
    )


def _subject(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
