"""Makes clients inside a run trust moat's authority and find the proxy: one bundle, and every variable that they read.

Finding the host's roots reads files; the rest is text. Never holds a key: only certificates get into a bundle.

    host's roots ─┐
                  ├─▶ /etc/moat/ca-bundle.pem = /etc/ssl/certs/ca-certificates.crt ◀── variables, wgetrc
                  └─▶ /etc/moat/truststore.p12  (the same for Java: truststore.py) ◀── JAVA_TOOL_OPTIONS
    our CA ─────────▶ /etc/moat/ca.pem  (for clients that add to their own roots)

Which client needs which of them is a table, docs/reference/clients.md; what is in it is tested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

FOLDER = "/etc/moat"
BUNDLE = f"{FOLDER}/ca-bundle.pem"
AUTHORITY = f"{FOLDER}/ca.pem"
WGETRC = f"{FOLDER}/wgetrc"
TRUST_STORE = f"{FOLDER}/truststore.p12"
JAVA = "JAVA_TOOL_OPTIONS"  # the one variable that every JVM reads, however it is started
SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"  # what GnuTLS, curl, git and Go read when no variable tells them
DOOR_URL = "http://127.0.0.1:19080"
NO_PROXY = "localhost,127.0.0.1,::1"

ROOT_FILES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Arch, Alpine
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # Fedora, RHEL
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # older RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),  # macOS, OpenBSD
)

# SSL_CERT_FILE and its like replace a client's roots, so they name the whole bundle (measured client by client).
_BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",  # OpenSSL, Go, rustls-native-certs, httpx, uv, Codex
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",  # Debian's git is built with GnuTLS and ignores SSL_CERT_FILE
    "PIP_CERT",  # pip before 24.2 ignores SSL_CERT_FILE
    "NPM_CONFIG_CAFILE",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "PERL_LWP_SSL_CA_FILE",  # LWP from CPAN brings roots of its own; Debian's takes the system's
    "NIX_SSL_CERT_FILE",
)
_ADDED_VARIABLES = ("NODE_EXTRA_CA_CERTS",)  # adds to Node's own roots
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")  # wget and gRPC read lower case only
_NO_PROXY_VARIABLES = ("NO_PROXY", "no_proxy")

# Variables that would lead a client past the proxy or past our authority; a user's own are dropped with a warning.
RESERVED = frozenset(
    {*_BUNDLE_VARIABLES, *_ADDED_VARIABLES, *_PROXY_VARIABLES, *_NO_PROXY_VARIABLES}
    | {"ALL_PROXY", "all_proxy", "FTP_PROXY", "ftp_proxy", "SSL_CERT_DIR", "WGETRC", "NODE_USE_ENV_PROXY"}
    | {"NPM_CONFIG_PROXY", "NPM_CONFIG_HTTPS_PROXY", "npm_config_cafile", "npm_config_proxy", "npm_config_https_proxy"}
    | {"GIT_SSL_NO_VERIFY", "NODE_TLS_REJECT_UNAUTHORIZED", "PIP_PROXY", "CARGO_HTTP_PROXY", "PERL_LWP_ENV_PROXY"}
)

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s[^-]+-----END CERTIFICATE-----")  # ten times as fast as .+?


def host_roots(candidates: Iterable[Path] = ROOT_FILES) -> str:
    """Return the first bundle of system roots that can be read, as PEM; empty where there is none.

    A run needs them only for what is not intercepted, so a machine without any is no error.
    """
    for path in candidates:
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        if "-----BEGIN CERTIFICATE-----" in text:
            return text
    return ""


def certificates(text: str) -> str:
    """Return only the certificates in text: comments, and keys that somebody left there, stay behind."""
    return "".join(f"{match}\n" for match in _CERTIFICATE.findall(text))


def trust_files(roots: str, authority: str) -> Mapping[str, str]:
    """Return the files that carry trust, by path inside. roots, authority: PEM."""
    own = certificates(authority)
    bundle = own + certificates(roots)
    return {
        AUTHORITY: own,
        BUNDLE: bundle,
        SYSTEM_BUNDLE: bundle,
        WGETRC: f"ca_certificate = {BUNDLE}\n",  # wget with GnuTLS reads no variable for its roots
    }


def trust_variables() -> Mapping[str, str]:
    """Return the variables that point clients to the files of trust_files."""
    variables = dict.fromkeys(_BUNDLE_VARIABLES, BUNDLE) | dict.fromkeys(_ADDED_VARIABLES, AUTHORITY)
    return variables | {"WGETRC": WGETRC}


def proxy_variables(url: str = DOOR_URL) -> Mapping[str, str]:
    """Return the variables that point clients to the proxy. url holds no token for a run that has a door."""
    variables = dict.fromkeys(_PROXY_VARIABLES, url) | dict.fromkeys(_NO_PROXY_VARIABLES, NO_PROXY)
    # Node 22 and later, and Perl's LWP, ignore the proxy variables without these.
    return variables | {"NODE_USE_ENV_PROXY": "1", "PERL_LWP_ENV_PROXY": "1"}


def java_options(url: str = DOOR_URL) -> str:
    """Return what a JVM must be told: it reads no variable for proxy or roots. localhost it leaves alone by itself."""
    proxy = urlsplit(url)
    settings = {"javax.net.ssl.trustStore": TRUST_STORE, "javax.net.ssl.trustStoreType": "PKCS12"}
    for scheme in ("http", "https"):
        settings |= {f"{scheme}.proxyHost": proxy.hostname or "", f"{scheme}.proxyPort": str(proxy.port)}
    return " ".join(f"-D{name}={value}" for name, value in settings.items())
