from __future__ import annotations

from pathlib import Path

import pytest
from moat.runs.trust import (
    AUTHORITY,
    BUNDLE,
    DOOR_URL,
    RESERVED,
    SYSTEM_BUNDLE,
    TRUST_STORE,
    WGETRC,
    certificates,
    host_roots,
    java_options,
    proxy_variables,
    trust_files,
    trust_variables,
)

ROOT = "-----BEGIN CERTIFICATE-----\nROOT\n-----END CERTIFICATE-----\n"
OURS = "-----BEGIN CERTIFICATE-----\nOURS\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\ns3cr3t\n-----END PRIVATE KEY-----\n"


def test_the_first_readable_bundle_is_taken(tmp_path: Path) -> None:
    second, third = tmp_path / "second", tmp_path / "third"
    second.write_text(ROOT)
    third.write_text(OURS)

    assert host_roots((tmp_path / "absent", second, third)) == ROOT


def test_a_file_without_a_certificate_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")

    assert host_roots((tmp_path / "empty", tmp_path)) == ""


def test_only_certificates_get_into_a_bundle() -> None:
    assert certificates(f"# Corp root\n{ROOT}{KEY}junk{OURS}") == ROOT + OURS


def test_windows_line_ends_are_no_obstacle() -> None:
    assert certificates(ROOT.replace("\n", "\r\n")).count("BEGIN CERTIFICATE") == 1


def test_the_bundle_holds_the_system_roots_and_ours() -> None:
    files = trust_files(ROOT + KEY, OURS)

    assert files[BUNDLE] == OURS + ROOT
    assert files[SYSTEM_BUNDLE] == files[BUNDLE]
    assert files[AUTHORITY] == OURS
    assert BUNDLE in files[WGETRC]


def test_a_host_without_roots_still_gets_a_bundle() -> None:
    assert trust_files("", OURS)[BUNDLE] == OURS


@pytest.mark.parametrize(
    "variable",
    ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "NPM_CONFIG_CAFILE",
     "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "DENO_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "PERL_LWP_SSL_CA_FILE"],
)  # fmt: skip
def test_variables_that_replace_roots_name_the_whole_bundle(variable: str) -> None:
    assert trust_variables()[variable] == BUNDLE


def test_node_adds_our_authority_to_its_own_roots() -> None:
    assert trust_variables()["NODE_EXTRA_CA_CERTS"] == AUTHORITY


def test_proxy_variables_are_set_in_both_cases_without_a_token() -> None:
    variables = proxy_variables()

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        assert variables[name] == DOOR_URL
    assert "@" not in DOOR_URL
    assert variables["NO_PROXY"] == variables["no_proxy"] == "localhost,127.0.0.1,::1"
    assert variables["NODE_USE_ENV_PROXY"] == variables["PERL_LWP_ENV_PROXY"] == "1"


def test_every_variable_of_ours_is_reserved() -> None:
    assert set(trust_variables()) | set(proxy_variables()) <= RESERVED
    assert {"ALL_PROXY", "all_proxy", "SSL_CERT_DIR"} <= RESERVED


def test_java_is_told_of_the_proxy_for_both_schemes_and_of_its_own_trust_store() -> None:
    words = java_options("http://10.9.0.1:4711").split()

    assert {f"-D{scheme}.proxyHost=10.9.0.1" for scheme in ("http", "https")} <= set(words)
    assert {f"-D{scheme}.proxyPort=4711" for scheme in ("http", "https")} <= set(words)
    assert f"-Djavax.net.ssl.trustStore={TRUST_STORE}" in words
    assert "-Djavax.net.ssl.trustStoreType=PKCS12" in words
