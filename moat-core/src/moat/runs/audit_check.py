"""What `moat doctor` says of the audit: whether it is whole, whose key signs it, and whether there is room for more.

Reads the log as `moat audit verify` does, and changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from moat.api.errors import DaemonError, MoatError, StoreLocked
from moat.audit.heads import public_key_of
from moat.audit.reading import AuditReader
from moat.audit.verify import Pin, Report, verify_log
from moat.daemon.audit_key import AuditKeys
from moat.daemon.client import DaemonClient
from moat.paths import Home
from moat.runs.checks import Check
from moat.store.keyring import SystemKeyring

FULL_BYTES = 16 * 1024**2  # less than a day of a busy run; without room, requests with credentials are refused
LARGE_BYTES = 512 * 1024**2  # some 20 s on a fast machine
KEYRING_TIMEOUT_S = 5.0  # nobody is to type a password for a check
_VERIFY = "run: moat audit verify"
_RESTING = "what cannot be entered is not done: requests with credentials are refused"
_KEY_CHARS = 16
_POLL_S = 0.05


def check_audit(home: Home, keys: AuditKeys | None = None) -> Check:
    """Look at the installation's audit. keys: other than this user's, in tests."""
    keys = keys or AuditKeys(home, os.environ, SystemKeyring(KEYRING_TIMEOUT_S))
    if problem := _unwritable(home.audit):
        return Check("audit", "failed", f"{problem}; {_RESTING}", f"make room, or make {home.audit.parent} writable")
    _have_sealed(DaemonClient(home), keys)
    try:
        secret = keys.look()
    except StoreLocked as failure:
        return Check("audit", "warning", f"nothing is signed now: {failure.problem}", "unlock the keyring")
    except MoatError as failure:
        return Check("audit", "failed", f"its key cannot be used: {failure.problem}", _VERIFY)
    pin = Pin() if secret is None else Pin(public_key_of(secret.seed), secret.anchor)
    if not home.audit.exists() and (pin.anchor is None or not pin.anchor.counter):
        return Check("audit", "ok", "nothing was recorded yet")
    if (size := _size(home.audit)) > LARGE_BYTES:
        return Check("audit", "warning", f"{size // 1024**2} MiB, which takes too long to verify here", _VERIFY)
    try:
        report = _verified(home, pin)
    except MoatError as failure:
        return Check("audit", "failed", failure.problem, _VERIFY)
    return _told(report, pin, keys)


def _have_sealed(client: DaemonClient, keys: AuditKeys) -> None:
    """Have a daemon enter and sign what is in its memory. One that has just started is given time to get the key."""
    until = time.monotonic() + KEYRING_TIMEOUT_S
    with contextlib.suppress(DaemonError):
        client.seal()
        while keys.place is None and time.monotonic() < until:
            time.sleep(_POLL_S)
            if keys.place is not None:
                client.seal()


def _verified(home: Home, pin: Pin) -> Report:
    if not home.audit.exists():
        return verify_log({}, [], pin)
    with AuditReader(home.audit) as reader:
        return reader.verify(pin)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _told(report: Report, pin: Pin, keys: AuditKeys) -> Check:
    if report.faults:
        first = report.faults[0]
        return Check("audit", "failed", f"not whole: {first.chain}, entry {first.seq}: {first.problem}", _VERIFY)
    detail = f"whole: {report.entries} entries in {report.chains} chains"
    if not pin.public_key:
        return Check("audit", "warning", f"{detail}, signed by nobody yet", "run: moat proxy restart")
    detail = f"{detail}, signed by {pin.public_key[:_KEY_CHARS]}…"
    place = keys.place
    if place is not None and place.lives_in == "file" and not keys.wants_file:
        hint = "have a keyring before the first run, or set MOAT_KEYRING_BACKEND=file where that is meant"
        return Check("audit", "warning", f"{detail}, whose key is a file beside it: who writes there can sign", hint)
    return Check("audit", "ok", f"{detail}, {'in a file' if keys.wants_file else 'in the keyring'}")


def _unwritable(file: Path) -> str:
    """Return why nothing more can be entered, "" where it can."""
    place = file if file.exists() else next(each for each in file.parents if each.exists())
    if not os.access(place, os.W_OK):
        return f"{place} cannot be written"
    free = shutil.disk_usage(place).free
    return f"{free // 1024**2} MiB are free at {place}" if free < FULL_BYTES else ""
