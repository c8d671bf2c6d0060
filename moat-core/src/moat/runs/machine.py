"""What of this machine `moat doctor` looks at beside runtimes: versions, kernel, names, clock, disk, the CA's files.

Reads only, asks nobody outside, and takes milliseconds. Every check ends in a sentence, and in what to type.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import moat
from moat.paths import Home
from moat.runs.checks import Check
from moat.runs.remains import size_of

TIGHT_BYTES, FULL_BYTES = 1024**3, 64 * 1024**2  # less than an image needs; than a start does
RELEASED = datetime(2026, 1, 1, tzinfo=UTC)  # no clock that is right says less
SOON = timedelta(days=14)
_LANDLOCK_CREATE_RULESET, _VERSION_FLAG = 444, 1  # linux/landlock.h; the number is the same everywhere
_NEW_CA = "run: moat proxy stop, remove the folder ca in it, and start your runs anew"


def check_machine(home: Home, now: datetime | None = None) -> Iterator[Check]:
    """Yield what can be told without a daemon."""
    now = now or datetime.now(UTC)
    yield check_versions()
    yield check_kernel()
    yield check_names()
    yield check_clock(now)
    yield check_disk(home)


def check_versions() -> Check:
    """Say what runs here."""
    detail = f"moat {moat.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if platform.system() != "Linux":
        return Check("versions", "failed", detail, "sealed runs need Linux: use a virtual machine")
    return Check("versions", "ok", detail)


def check_kernel(proc: Path = Path("/proc")) -> Check:
    """Look for what sealing needs of the kernel, and for what helps beside it."""
    missing = [name for name, path in (("namespaces", "self/ns/net"), ("seccomp", "sys/kernel/seccomp/actions_avail"))
               if not (proc / path).exists()]  # fmt: skip
    release = platform.release()
    if missing:
        return Check("kernel", "failed", f"{release} has no {', no '.join(missing)}", "run another kernel")
    spaces = _text(proc / "sys/user/max_user_namespaces")
    notes = []
    if spaces == "0" or _text(proc / "sys/kernel/unprivileged_userns_clone") == "0":
        notes.append("user namespaces are switched off, which bubblewrap needs")
    if not has_landlock():
        notes.append("no Landlock: the proxy's worker can read its user's files")
    hint = "see bubblewrap below; Docker needs neither" if notes else ""
    return Check("kernel", "warning" if notes else "ok", "; ".join((release, *notes)), hint)


def has_landlock() -> bool:
    """Whether the kernel can take file rights away from a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _VERSION_FLAG)) > 0


def check_names(file: Path = Path("/etc/resolv.conf")) -> Check:
    """Say whom the proxy asks for addresses of upstreams; runs ask nobody but their door."""
    servers = [words[1] for line in (_text(file) or "").splitlines()
               if len(words := line.split()) > 1 and words[0] == "nameserver"]  # fmt: skip
    if servers:
        return Check("name servers", "ok", ", ".join(servers))
    return Check("name servers", "warning", f"{file} names none", "only addresses and /etc/hosts will be found")


def check_clock(now: datetime) -> Check:
    """Look whether certificates made now would be valid elsewhere."""
    told = now.strftime("%Y-%m-%d %H:%M UTC")
    if now < RELEASED:
        return Check("clock", "failed", f"it says {told}, which was long ago", "run: timedatectl set-ntp true")
    return Check("clock", "ok", told)


def check_disk(home: Home) -> Check:
    """Look how much room there is where moat keeps things."""
    place = next(each for each in (home.root, *home.root.parents) if each.exists())
    free, used = shutil.disk_usage(place).free, size_of(home.root) if home.root.exists() else 0
    detail = f"{_mebibytes(free)} free at {home.root}, {_mebibytes(used)} used by moat"
    if not os.access(place, os.W_OK):
        return Check("disk", "failed", f"{place} cannot be written", "set MOAT_HOME to a folder of yours")
    if free < FULL_BYTES:
        return Check("disk", "failed", detail, "run: moat clean, and make room")
    return Check("disk", "warning", detail, "run: moat clean") if free < TIGHT_BYTES else Check("disk", "ok", detail)


def check_ca(home: Home, now: datetime | None = None) -> Check:
    """Look at the installation's certificate authority. The daemon makes it at its first start."""
    from cryptography import x509  # slow to import

    now, file, key = now or datetime.now(UTC), home.ca / "ca.pem", home.ca / "ca.key"
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        mode = stat.S_IMODE(key.stat().st_mode)
    except (OSError, ValueError) as failure:
        return Check("CA", "failed", f"it cannot be read: {failure}", _NEW_CA)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if mode & 0o077:
        return Check("CA", "failed", "its key can be read by others", f"run: chmod 600 {key}")
    if not begins <= now < ends:
        return Check("CA", "failed", f"valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, which is not today", _NEW_CA)
    soon = ends - now < SOON
    return Check("CA", "warning" if soon else "ok", f"valid until {ends:%Y-%m-%d}", _NEW_CA if soon else "")


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _mebibytes(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB" if size >= 1024**3 else f"{size / 1024**2:.1f} MiB"
