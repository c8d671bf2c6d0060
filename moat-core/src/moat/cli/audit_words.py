"""Entries of the audit in words, a line each, and what was found when it was verified."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from moat.audit.canonical import parsed
from moat.audit.chain import Entry
from moat.audit.verify import Report

TITLES = ("NO", "AT", "WHAT", "DETAILS")
_SHORT = 12  # characters of a digest


def as_rows(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Return entries as rows under TITLES, as wide as the terminal."""
    rows: list[tuple[str, ...]]
    rows = [(str(each.seq), each.at[:19].replace("T", " "), each.kind, details(each)) for each in entries]
    if not sys.stdout.isatty():
        return rows
    number, kind = (max((len(row[column]) for row in rows), default=0) for column in (0, 2))
    room = max(20, shutil.get_terminal_size().columns - max(number, 2) - 19 - max(kind, 4) - 6)
    return [(*row[:3], row[3] if len(row[3]) <= room else f"{row[3][: room - 1]}…") for row in rows]


def details(entry: Entry) -> str:
    """Return what an entry says beside its kind."""
    try:
        facts = parsed(entry.facts)
        match entry.kind:
            case "used":
                return f"{facts['grant']} at {facts['authority']} ({facts['via']}, {_tunnels(facts)})"
            case "used-again":
                return ", ".join(f"{each['grant']} at {each['authority']} x{each['count']}" for each in facts["uses"])
            case "denied":
                return _denials(facts)
            case "guessed":
                return _guesses(facts)
            case _:
                return ", ".join(
                    f"{name} {_shown(value)}" for name, value in facts.items() if value not in ("", [], None)
                )
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"not what moat writes: {entry.facts}"


def _tunnels(facts: Mapping[str, Any]) -> str:
    """Return which tunnels a first use was of: those that began together are one entry."""
    several = facts.get("tunnels")
    return f"tunnels {', '.join(map(str, several))}" if several else f"tunnel {facts['tunnel']}"


def verdict(report: Report, key: str) -> str:
    """Return in a line what was found."""
    if report.faults:
        first = report.faults[0]
        more = f"; {len(report.faults) - 1} more" if len(report.faults) > 1 else ""
        return f"not whole: {first.chain}, entry {first.seq}: {first.problem}{more}"
    chains = f" in {report.chains} chains" if report.chains > 1 else ""
    return f"whole: {report.entries} entries{chains}, signed by the key {key or 'of nobody'}"


def remarks(report: Report, *, is_served: bool) -> list[str]:
    """Return what is to be known of a verdict. is_served: whether a daemon writes the log now."""
    found: list[str] = []
    if report.unsealed and not report.faults:
        found.append(f"{report.unsealed} entries are not signed yet: of them only the hashes are proven")
    if report.is_closed is False and not is_served:
        found.append("the daemon did not end as it should: what it had in memory of its last second may be missing")
    if not report.is_pinned:
        found.append("nobody vouches for the key: compare it with what moat audit key says there, or give it as --key")
    return found


def as_json(report: Report, key: str) -> dict[str, object]:
    """Return a report for a program."""
    faults = [{"chain": each.chain, "seq": each.seq, "problem": each.problem} for each in report.faults]
    return {"ok": report.is_whole, "first_bad": faults[0] if faults else None, "faults": faults,
            "chains": report.chains, "entries": report.entries, "unsealed": report.unsealed,
            "pinned": report.is_pinned, "closed": report.is_closed, "key": key}  # fmt: skip


def _denials(facts: Mapping[str, Any]) -> str:
    told = [f"{each['authority']} x{each['count']}: {each['why']}" for each in facts["denials"]]
    return ", ".join([*told, *([f"and {facts['more']} more"] if "more" in facts else [])])


def _guesses(facts: Mapping[str, Any]) -> str:
    """Return in words who showed no token of a run's, or a wrong one."""
    told = [
        f"{each['address']}{_at_run(each)}: {_wrong(each)}, {each['first'][:19]} to {each['last'][11:19]}"
        for each in facts["from"]
    ]
    return ", ".join([*told, *([f"and {facts['more']} more"] if "more" in facts else [])])


def _at_run(guess: Mapping[str, Any]) -> str:
    return f" at {guess['run']}" if "run" in guess else ""


def _wrong(guess: Mapping[str, Any]) -> str:
    counts = (f"{guess['wrong']} wrong tokens", f"{guess['missing']} without one")
    return " and ".join(text for text in counts if not text.startswith("0 "))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_shown(each) for each in value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{text[:_SHORT]}…" if len(text) == 64 and text.isalnum() else text
