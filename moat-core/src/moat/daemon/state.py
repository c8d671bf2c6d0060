"""What a daemon knows of its live runs, as it is kept for the one after it: `daemon/runs.json`. Pure but for `load`.

    {"version": 2, "moat": "1.2", "boot_id": …, "runs": [{"info": {…}, "token_sha256", "rules", "needs", …}, …]}

Names of grants and the whole policy, never a credential; of tokens and nonces only what it takes to know them again. A
bare array of runs, as version 1 had it, is read too. Unknown fields are ignored, but for a run that `needs` what this
daemon is not capable of: that one stays closed and is handed on as it is. A file of a later version is never touched.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import moat
from moat.api.errors import DaemonError, MoatError
from moat.api.runs import NetworkPolicy, PolicyMode, RunContext, RunInfo
from moat.daemon.extras import Extras
from moat.daemon.liveness import is_process_id
from moat.daemon.protocol import CAPABILITIES
from moat.daemon.registration import checked_policy
from moat.daemon.registry import Entry, Place
from moat.ids import checked_run_id
from moat.net.rules import rule_text
from moat.paths import Home, set_aside
from moat.trace.values import decode, parsed

VERSION = 2
_HASH = re.compile(r"[0-9a-f]{64}")
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
    needs: tuple[str, ...] = ()


def state_file(home: Home) -> Path:
    """Return where an installation's live runs are kept."""
    return home.daemon / "runs.json"


def saved(entry: Entry) -> SavedRun:
    """Return what is kept of a live run."""
    policy = entry.context.policy
    lines = tuple(rule_text(rule) for rule in policy.rules)
    extras = entry.extras.without_values()
    return SavedRun(entry.info, entry.context.token_sha256, policy.allow, lines, entry.place, extras, entry.needs)


def restored(run: SavedRun) -> Entry:
    """Return a run as its successor begins with it: same token, same policy, closed until its grants are resolved.

    Raises MoatError when its policy or its id is not understood, ValueError when nobody could come back to it: it is
    then not served at all.
    """
    checked_run_id(run.info.run_id)
    _check_place(run)
    context = RunContext(
        run_id=run.info.run_id,
        token_sha256=run.token_sha256,
        policy=checked_policy(run.info.policy, run.allow, run.rules),
        why_closed=UNRESOLVED,
        trace_bodies=run.extras.trace_bodies,
    )
    return Entry(context, run.info, run.place, run.extras, run.needs)


def render(entries: Iterable[Entry], boot_id: str) -> bytes:
    """Return the file's contents."""
    runs = [json.loads(entry.unread) if entry.unread else asdict(saved(entry)) for entry in entries]
    return json.dumps({"version": VERSION, "moat": moat.__version__, "boot_id": boot_id, "runs": runs}).encode()


def parse(data: bytes, boot_id: str) -> tuple[list[Entry], list[str]]:
    """Return the runs that a file holds, and what is wrong with those that cannot be read.

    None, when the machine was started again since: the runs ended with it. Raises ValueError for what is no such file,
    DaemonError for one of a later version, whose runs only a daemon of that version can take over.
    """
    content = parsed(data)
    if isinstance(content, list):
        content = {"version": 1, "boot_id": boot_id, "runs": content}
    if not isinstance(content, dict) or type(version := content.get("version")) is not int or version < 1:
        raise ValueError("its format is not known here")
    if version <= VERSION and not isinstance(content.get("runs"), list):
        raise ValueError("it holds no runs")
    if content.get("boot_id", boot_id) != boot_id:
        return [], []
    if version > VERSION:
        raise _too_new(version, content.get("moat"))
    return _read(content["runs"])


def load(home: Home, boot_id: str) -> list[Entry]:
    """Return the runs of the daemon before this one. What cannot be read is set aside with a warning, never a brick.

    Raises DaemonError for a file of a later version: it stays as it is.
    """
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
            entry = _closed(each, lacks) if (lacks := _lacking(each)) else restored(decode(SavedRun, each))
        except (ValueError, MoatError) as failure:
            problems.append(failure.problem if isinstance(failure, MoatError) else str(failure))
        else:
            known = {each.context.token_sha256 for each in found.values()}
            if entry.run_id in found or entry.context.token_sha256 in known:
                problems.append(f"{entry.run_id} has the id or the token of another run")
            else:
                found[entry.run_id] = entry
    return list(found.values()), problems


def _check_place(run: SavedRun) -> None:
    """Raise ValueError for hashes, a port or a process id that are none."""
    place = run.place
    if not _HASH.fullmatch(run.token_sha256) or not _HASH.fullmatch(place.nonce_sha256 or run.token_sha256):
        raise ValueError("a hash of a token or a nonce is none")
    if place.launcher and not is_process_id(place.launcher):
        raise ValueError("its launcher is no process")
    if not 0 <= place.port < 65_536:
        raise ValueError("its port is none")


def _lacking(run: Any) -> list[str]:
    """Return what a run needs and this daemon is not capable of."""
    needs = run.get("needs") if isinstance(run, dict) else None
    return [str(need) for need in needs if need not in CAPABILITIES] if isinstance(needs, list) else []


def _closed(run: dict[str, Any], lacks: list[str]) -> Entry:
    """Return a run that would be served otherwise than it was asked for: nothing of it is.

    Raises ValueError and MoatError as `restored` does.
    """
    info: Any = run.get("info")
    if isinstance(info, dict) and info.get("policy") not in get_args(PolicyMode):
        info = dict(info, policy="strict")
    known: dict[str, Any] = {name: run[name] for name in ("token_sha256", "place") if name in run}
    entry = restored(decode(SavedRun, known | {"info": info}))
    why = f"this run needs a newer version of moat's daemon, for {', '.join(lacks)}; any command of that version helps"
    context = replace(entry.context, policy=NetworkPolicy("strict"), why_closed=why)
    return replace(entry, context=context, unread=json.dumps(run))


def _too_new(version: int, moat_version: object) -> DaemonError:
    whose = f"moat {moat_version}" if isinstance(moat_version, str) and moat_version else "a newer version of moat"
    problem = f"live runs were written down by {whose} (format {version}), which moat {moat.__version__} cannot read"
    return DaemonError(problem, hint="use a command of that version")
