"""What was done while no daemon was there to enter it: left in a folder, entered by the next one.

    moat grant, a yes to a moat.yaml ─▶ daemon? ─ yes ─▶ POST /v1/audit        no ─▶ audit-notes/<time>-<pid>.json

A note in the folder is not chained yet: until it is entered, who can write there can take it away.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from moat.api.errors import DaemonError
from moat.daemon.client import DaemonClient
from moat.daemon.protocol import NoteRequest
from moat.paths import UNWRITABLE, Home, write_private
from moat.trace.values import decode, parsed

Kind: TypeAlias = Literal["granted", "revoked", "approved", "exec", "exec-ended", "attached", "detached"]
Left: TypeAlias = tuple[NoteRequest, Callable[[str], None]]  # and what takes it that it was entered, or why not
MAX_TAKEN = 1_000
RUN_OVER = "the run is over"  # so that nothing is entered into its chain any more

log = logging.getLogger(__name__)


def tell(home: Home, kind: Kind, facts: Mapping[str, str], run_id: str = "") -> str:
    """Have something entered, by the daemon that is there or by the next one; return why it cannot be, "" if it can."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    request = NoteRequest(kind, dict(facts), run_id, at)
    try:
        DaemonClient(home).note(request)
    except DaemonError:  # none, an older one, or one whose disk is full
        try:
            _leave(home, request)
        except UNWRITABLE as failure:
            return str(failure)
    return ""


def left(home: Home) -> list[Left]:
    """Return what is in the folder, oldest first. A file that is no note is set aside by its name, and logged."""
    found: list[Left] = []
    for file in sorted(home.audit_notes.glob("*.json"))[:MAX_TAKEN]:
        try:
            request = decode(NoteRequest, parsed(file.read_bytes()))
        except (OSError, ValueError) as failure:
            log.warning("what was left for the audit is no note", extra={"path": str(file), "problem": str(failure)})
            file.rename(file.with_suffix(".broken"))
            continue
        found.append((request, partial(_entered, file)))
    return found


def _leave(home: Home, request: NoteRequest) -> None:
    note = {"kind": request.kind, "facts": request.facts, "run_id": request.run_id, "at": request.at}
    write_private(home.audit_notes / f"{time.time_ns()}-{os.getpid()}.json", json.dumps(note).encode())


def _entered(file: Path, problem: str) -> None:
    if problem in ("", RUN_OVER):
        file.unlink(missing_ok=True)
