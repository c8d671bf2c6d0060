from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from moat.api.errors import DaemonError
from moat.proxy.ca import CA_VALID, LEAF_VALID, leaf, load, load_or_make, make

NOW = datetime.now(UTC).replace(microsecond=0)


def test_the_ca_is_made_once_with_a_private_key_file(tmp_path: Path) -> None:
    folder = tmp_path / "ca"

    made, again = load_or_make(folder), load_or_make(folder)

    assert again.certificate == made.certificate
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert isinstance(made.key.curve, ec.SECP256R1)
    assert made.certificate.not_valid_after_utc - made.certificate.not_valid_before_utc >= CA_VALID


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "ca.key").unlink(), "missing"),
        (lambda folder: (folder / "ca.pem").unlink(), "missing"),
        (lambda folder: (folder / "ca.key").chmod(0o644), "read by others"),
        (lambda folder: (folder / "ca.pem").write_text(make(NOW).certificate_pem), "belong together"),
        (lambda folder: (folder / "ca.pem").write_text("half-writ"), "not PEM"),
        (lambda folder: (folder / "ca.key").write_text(""), "not PEM"),
    ],
    ids=["no key", "no certificate", "world-readable", "mismatched", "half-written", "empty key"],
)  # fmt: skip
def test_a_broken_ca_is_refused_with_the_fix(damage: object, words: str, tmp_path: Path) -> None:
    load_or_make(tmp_path / "ca")
    assert callable(damage)
    damage(tmp_path / "ca")

    with pytest.raises(DaemonError, match=words) as error:
        load_or_make(tmp_path / "ca")

    assert "rm -r" in error.value.hint


def test_an_expired_ca_is_refused(tmp_path: Path) -> None:
    load_or_make(tmp_path / "ca", NOW - CA_VALID - timedelta(days=1))

    with pytest.raises(DaemonError, match="expired"):
        load_or_make(tmp_path / "ca", NOW)


def test_a_ca_survives_its_pem() -> None:
    ca = make(NOW)

    assert load(ca.certificate_pem, ca.key_pem).key_pem == ca.key_pem
    assert "PRIVATE" not in repr(ca)


@pytest.mark.parametrize("host", ["api.example.com", "1.2.3.4", "2001:db8::1", "a." * 100 + "example"])
def test_a_leaf_names_exactly_its_host_in_the_modern_profile(host: str) -> None:
    ca, key = make(NOW), ec.generate_private_key(ec.SECP256R1())
    certificate = x509.load_pem_x509_certificate(leaf(ca, host, key.public_key(), NOW).encode())

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [host]
    present = {extension.oid for extension in certificate.extensions}
    assert {ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.SUBJECT_KEY_IDENTIFIER} <= present
    assert ExtensionOID.EXTENDED_KEY_USAGE in present
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert certificate.not_valid_after_utc == NOW + LEAF_VALID
    certificate.verify_directly_issued_by(ca.certificate)


def test_a_leaf_never_outlives_its_ca() -> None:
    ca, key = make(NOW), ec.generate_private_key(ec.SECP256R1())
    late = NOW + CA_VALID - timedelta(days=1)
    certificate = x509.load_pem_x509_certificate(leaf(ca, "a.example", key.public_key(), late).encode())

    assert certificate.not_valid_after_utc == ca.certificate.not_valid_after_utc


def test_openssl_accepts_the_chain_in_its_strict_mode(tmp_path: Path) -> None:
    ca, key = make(NOW), ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ca.pem").write_text(ca.certificate_pem)
    (tmp_path / "leaf.pem").write_text(leaf(ca, "a.example", key.public_key(), NOW))

    argv = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "a.example"]
    done = subprocess.run([*argv, "-CAfile", "ca.pem", "leaf.pem"], cwd=tmp_path, capture_output=True, check=False)

    assert done.stdout == b"leaf.pem: OK\n", done.stderr
    assert ssl.create_default_context(cadata=ca.certificate_pem).get_ca_certs()
