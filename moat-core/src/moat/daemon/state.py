"""What a daemon knows of its live runs, as it is kept for the one after it: `daemon/runs.json`. Pure but for `load`.

    {"version": 2, "boot_id": …, "runs": [{"info": {…}, "token_sha256", "allow", "rules", "nonce_sha256", …}, …]}

Names of grants and the whole policy, never a credential; of tokens and nonces only what it takes to know them again. A
bare array of runs, as version 1 had it, is read too. Unknown fields are ignored; a file of a later one is put aside.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moat.api.errors import MoatError
from moat.api.runs import RunContext, RunInfo
from moat.daemon.extras import Extras
from moat.daemon.registration import checked_policy
from moat.daemon.registry import Entry, Place
from moat.ids import checked_run_id
from moat.net.rules import rule_text
from moat.paths import Home, set_aside
from moat.trace.values import decode

VERSION = 2
UNRESOLVED = "the daemon was replaced, and this run's credentials are not there yet; try again in a moment"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SavedRun:
    """One live run as it is written down."""

    info: RunInfo
    token_sha256: str = field(repr=False)
    allow: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    place: Place = field(default_factory=Place)
    extras: Extras = field(default_factory=Extras)


def state_file(home: Home) -> Path:
    """Return where an installation's live runs are kept."""
    return home.daemon / "runs.json"


def saved(entry: Entry) -> SavedRun:
    """Return what is kept of a live run."""
    policy = entry.context.policy
    lines = tuple(rule_text(rule) for rule in policy.rules)
    extras = entry.extras.without_values()
    return SavedRun(entry.info, entry.context.token_sha256, policy.allow, lines, entry.place, extras)


def restored(run: SavedRun) -> Entry:
    """Return a run as its successor begins with it: same token, same policy, closed until its grants are resolved.

    Raises MoatError when its policy or its id is not understood: it is then not served at all.
    """
    checked_run_id(run.info.run_id)
    context = RunContext(
        run_id=run.info.run_id,
        token_sha256=run.token_sha256,
        policy=checked_policy(run.info.policy, run.allow, run.rules),
        why_closed=UNRESOLVED,
    )
    return Entry(context, run.info, run.place, run.extras)


def render(entries: Iterable[Entry], boot_id: str) -> bytes:
    """Return the file's contents."""
    runs = [asdict(saved(entry)) for entry in entries]
    return json.dumps({"version": VERSION, "boot_id": boot_id, "runs": runs}).encode()


def parse(data: bytes, boot_id: str) -> tuple[list[Entry], list[str]]:
    """Return the runs that a file holds, and what is wrong with those that cannot be read.

    None, when the machine was started again since: the runs ended with it. Raises ValueError for what is no such file.
    """
    content = json.loads(data)
    if isinstance(content, list):
        content = {"version": 1, "boot_id": boot_id, "runs": content}
    if not isinstance(content, dict) or content.get("version") not in (1, VERSION):
        raise ValueError("its format is not known here")
    if not isinstance(content.get("runs"), list):
        raise ValueError("it holds no runs")
    if content.get("boot_id") != boot_id:
        return [], []
    return _read(content["runs"])


def load(home: Home, boot_id: str) -> list[Entry]:
    """Return the runs of the daemon before this one. What cannot be read is set aside with a warning, never a brick."""
    file = state_file(home)
    try:
        entries, problems = parse(file.read_bytes(), boot_id)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as failure:
        entries, problems = [], [str(failure)]
    if problems:
        log.warning("runs.json was set aside", extra={"path": str(set_aside(file)), "problems": problems})
    return entries


def _read(runs: list[Any]) -> tuple[list[Entry], list[str]]:
    found: dict[str, Entry] = {}
    problems: list[str] = []
    for each in runs:
        try:
            entry = restored(decode(SavedRun, each))
        except (ValueError, MoatError) as failure:
            problems.append(failure.problem if isinstance(failure, MoatError) else str(failure))
        else:
            found[entry.run_id] = entry
    return list(found.values()), problems
