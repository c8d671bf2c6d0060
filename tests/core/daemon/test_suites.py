from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from moat.daemon.suites import SUITES, configuration, preferring

SHOW = "import ssl; print([each['name'] for each in ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).get_ciphers()])"
SECURITY = "import ssl; print(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).security_level)"
FIRST = "TLS_AES_128_GCM_SHA256"

DEBIAN_12 = """
HOME = .
openssl_conf = openssl_init # used by libssl
[ new_oids ]
[openssl_init]
# providers = provider_sect
"""

UBUNTU = """
openssl_conf = openssl_init
[openssl_init]
providers = provider_sect
ssl_conf = ssl_sect
[provider_sect]
default = default_sect
[default_sect]
activate = 1
[ssl_sect]
system_default = system_default_sect
[system_default_sect]
CipherString = DEFAULT:@SECLEVEL=3
"""


def shown(code: str, conf: Path) -> str:
    """Return what a Python prints whose OpenSSL reads a configuration."""
    env = {"PATH": os.environ["PATH"], "OPENSSL_CONF": str(conf)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def configured(tmp_path: Path, said: str) -> Path:
    """Return the file that is made on top of what a system's file says."""
    system, made = tmp_path / "system.cnf", tmp_path / "made.cnf"
    system.write_text(said)
    text = configuration(system)
    assert text is not None
    made.write_text(text)
    return made


@pytest.mark.parametrize("said", [DEBIAN_12, UBUNTU, "", "openssl_conf = init\n[init]\nssl_conf = s\n[s]\n"])
def test_aes_128_comes_first_whatever_else_the_system_says(tmp_path: Path, said: str) -> None:
    names = shown(SHOW, configured(tmp_path, said))

    assert names.startswith(f"['{FIRST}', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'")


def test_what_the_system_says_beside_holds(tmp_path: Path) -> None:
    assert shown(SECURITY, configured(tmp_path, UBUNTU)).strip() == "3"


def test_a_system_without_a_file_gets_ours_alone(tmp_path: Path) -> None:
    text = configuration(tmp_path / "nothing.cnf")

    assert text is not None
    (tmp_path / "made.cnf").write_text(text)
    assert shown(SHOW, tmp_path / "made.cnf").startswith(f"['{FIRST}'")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(UBUNTU + "Ciphersuites = TLS_AES_256_GCM_SHA384\n", id="suites of its own"),
        pytest.param(UBUNTU + ".include /etc/crypto-policies/back-ends/opensslcnf.config\n", id="a policy elsewhere"),
        pytest.param(".include /etc/more.cnf\n" + UBUNTU, id="more files"),
        pytest.param(UBUNTU.replace("= ssl_sect", "= $which"), id="a variable"),
        pytest.param("openssl_conf = \\\ninit\n", id="a line that goes on"),
    ],
)
def test_a_system_with_more_to_say_is_left_alone(tmp_path: Path, said: str) -> None:
    system = tmp_path / "system.cnf"
    system.write_text(said)

    assert configuration(system) is None


def test_a_file_that_cannot_be_written_or_read_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert preferring({"HOME": "/h"}, tmp_path / "file") == {"HOME": "/h"}

    paths = ssl.get_default_verify_paths()._replace(openssl_cafile=str(tmp_path / "cert.pem"))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    (tmp_path / "openssl.cnf").write_bytes(b"\xff\xfe")
    assert preferring({"HOME": "/h"}, tmp_path / "daemon") == {"HOME": "/h"}


def test_the_file_is_the_user_s_alone(tmp_path: Path) -> None:
    env = preferring({"HOME": "/h"}, tmp_path / "daemon")

    file = Path(env["OPENSSL_CONF"])
    assert (file.stat().st_mode & 0o777, env["HOME"]) == (0o600, "/h")
    assert f"Ciphersuites = {SUITES}" in file.read_text()
