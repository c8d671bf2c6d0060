from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from moat.runs.truststore import trust_store
from support.upstream import make_test_ca

FIRST, SECOND = make_test_ca().pem, make_test_ca().pem


def held(store: bytes) -> list[str]:
    """Return the certificates that another implementation finds in a store, as PEM."""
    return [each.certificate.public_bytes(Encoding.PEM).decode() for each in load_pkcs12(store, None).additional_certs]


def test_a_store_holds_every_certificate_in_order_and_needs_no_password() -> None:
    assert held(trust_store(f"# a comment\n{FIRST}{SECOND}")) == [FIRST, SECOND]


def test_each_certificate_has_a_name_of_its_own() -> None:
    found = load_pkcs12(trust_store(FIRST + SECOND), None).additional_certs

    assert [each.friendly_name for each in found] == [b"moat 1", b"moat 2"]


def test_the_same_certificates_make_the_same_bytes() -> None:
    assert trust_store(FIRST) == trust_store(FIRST)


@pytest.mark.parametrize("damage", ["AAAA", "MIIB", "A", "!"], ids=["no DER", "cut off", "no base64", "no letter"])
def test_a_damaged_certificate_is_left_out(damage: str) -> None:
    damaged = f"-----BEGIN CERTIFICATE-----\n{damage}\n-----END CERTIFICATE-----\n"

    assert held(trust_store(damaged + FIRST)) == [FIRST]


def test_a_key_beside_certificates_does_not_get_in() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nczNjcjN0\n-----END PRIVATE KEY-----\n"

    assert b"s3cr3t" not in trust_store(key + FIRST)


def test_java_trusts_each_of_them(tmp_path: Path) -> None:
    keytool = shutil.which("keytool")
    if keytool is None:
        pytest.skip("this machine has no keytool")
    (tmp_path / "store.p12").write_bytes(trust_store(FIRST + SECOND))

    listed = subprocess.run(
        [keytool, "-J-Xshare:auto", "-list", "-keystore", str(tmp_path / "store.p12")],
        input="\n", capture_output=True, text=True, check=False, env={"LANG": "C"},
    ).stdout  # fmt: skip

    assert listed.count("trustedCertEntry") == 2
