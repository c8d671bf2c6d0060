"""An OpenSSL configuration for the worker: the system's own, and of TLS 1.3's suites the one with AES-128 first.

Its hashes are SHA-256, for which processors have instructions: a handshake costs 20 µs less than with SHA-384, which
OpenSSL puts first. RFC 8446 §9.1 wants it of everybody. Python's `ssl` can order these suites from 3.15 on only
(SSLContext.set_ciphersuites), so OpenSSL is told where it looks by itself (config(5), SSL_CONF_cmd(3)).

    openssl_conf ─▶ [openssl_init] ssl_conf ─▶ [ssl] system_default ─▶ [system_default] Ciphersuites = …

Whoever looks after the machine may have a policy of their own: where the system's file orders suites, includes others
or says anything that is not understood here, it is left alone.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from moat.api.errors import MoatError
from moat.paths import write_private

SUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_WAY = ("openssl_conf", "ssl_conf", "system_default")  # each names the section where the next one stands
_SECTION = re.compile(r"\[\s*(\w+)\s*\]")
_VALUE = re.compile(r"([\w.]+)\s*=\s*(.*)")

log = logging.getLogger(__name__)


def preferring(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return env with the configuration named, which is written to folder; env as it is where there is none to write.

    env: a worker's, without an OPENSSL_CONF of its own. Blocking.
    """
    system = Path(ssl.get_default_verify_paths().openssl_cafile).with_name("openssl.cnf")  # both in OPENSSLDIR
    file = folder / "openssl.cnf"
    try:
        text = configuration(system)
        if text is None:
            return dict(env)
        write_private(file, text.encode(), lasting=False)
    except (OSError, ValueError, MoatError) as failure:  # a read-only home, a file that cannot be read
        log.info("TLS stays as the system has it", extra={"problem": str(failure)})
        return dict(env)
    return {**env, "OPENSSL_CONF": str(file)}


def configuration(system: Path) -> str | None:
    """Return the configuration on top of the system's; None where that one is to stand alone. Raises OSError."""
    if not system.exists():
        return _on_top("", {})
    said = _said(system.read_text())
    if said is None or "\n" in str(system):
        return None
    return _on_top(f".include {system}\n", said)


def _said(text: str) -> dict[str, dict[str, str]] | None:
    """Return what each section says, "default" for what comes first; None when there is more to it (config(5))."""
    sections: dict[str, dict[str, str]] = {"default": {}}
    section = sections["default"]
    for line in (line.partition("#")[0].strip() for line in text.splitlines()):
        if line.startswith(".") or line.endswith("\\"):
            return None
        if named := _SECTION.fullmatch(line):
            section = sections.setdefault(named[1], {})
        elif value := _VALUE.fullmatch(line):
            section[value[1]] = value[2].strip()
    return sections


def _on_top(text: str, said: Mapping[str, Mapping[str, str]]) -> str | None:
    """Return text and what leads to our line, in the sections that the system's file has for it."""
    section = "default"
    for step in _WAY:
        following = said.get(section, {}).get(step, "")
        if following and following not in said:
            return None  # a variable, or nothing that we can add to
        if not following:
            following = f"moat_{step}"
            text += f"[{section}]\n{step} = {following}\n"
        section = following
    if any(name.lower().endswith("ciphersuites") for name in said.get(section, {})):
        return None
    return f"{text}[{section}]\nCiphersuites = {SUITES}\n"
