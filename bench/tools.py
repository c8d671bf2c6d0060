"""What the bench needs besides moat: the load generator, built here, and the peers, from Debian and PyPI.

A peer that cannot be had is left out, and the table says so. Nothing is installed outside .build/ unless by root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / ".build"
LOAD = BUILD / "load"
MITMDUMP = BUILD / "mitmproxy" / "bin" / "mitmdump"
CERTGEN = Path("/usr/lib/squid/security_file_certgen")

_PACKAGES = {"nginx": "nginx-light", "squid": "squid-openssl", "haproxy": "haproxy", "cc": "gcc"}
_HEADERS = (Path("/usr/include/openssl/ssl.h"), "libssl-dev")


class Missing(Exception):
    """Something without which nothing can be measured; the text says how to get it."""


def prepare() -> None:
    """Install and build what is not there yet. Raises Missing."""
    BUILD.mkdir(exist_ok=True)
    _install_packages()
    for needed in ("nginx", "cc"):
        if not find(needed):
            raise Missing(f"{needed} is missing; run: sudo apt-get install {_PACKAGES[needed]}")
    _build_load()
    _install_mitmproxy()


def find(program: str) -> str | None:
    """Return the path of a program, also of one that only root has on the PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _install_packages() -> None:
    header, package = _HEADERS
    wanted = [name for program, name in _PACKAGES.items() if not find(program)]
    wanted += [] if header.exists() else [package]
    if not wanted or os.getuid() != 0 or not shutil.which("apt-get"):
        return
    say(f"installing {' '.join(wanted)}")
    # Their packages would start services of their own; ours must have the machine to themselves.
    policy = Path("/usr/sbin/policy-rc.d")
    is_ours = not policy.exists()
    if is_ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted]
        if _quietly(install) != 0:
            _quietly(["apt-get", "update", "-qq"])
            _quietly(install)
    finally:
        if is_ours:
            policy.unlink()


def _build_load() -> None:
    source = Path(__file__).with_name("load.c")
    if LOAD.exists() and LOAD.stat().st_mtime >= source.stat().st_mtime:
        return
    if not _HEADERS[0].exists():
        raise Missing(f"OpenSSL's headers are missing; run: sudo apt-get install {_HEADERS[1]}")
    subprocess.run(["cc", "-O2", "-o", str(LOAD), str(source), "-lssl", "-lcrypto"], check=True)


def _install_mitmproxy() -> None:
    if MITMDUMP.exists():
        return
    say("installing mitmproxy")
    venv, uv = BUILD / "mitmproxy", Path(sys.executable).with_name("uv")
    python = str(venv / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
    installer = [str(uv), "pip", "install", "--python", python] if uv.exists() else [python, "-m", "pip", "install"]
    if _quietly([*installer, "mitmproxy"]) != 0:
        shutil.rmtree(venv)


def _quietly(command: list[str]) -> int:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)
