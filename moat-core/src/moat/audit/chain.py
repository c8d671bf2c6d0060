"""One chain of entries: each holds the hash of the one before it, so that none can change without the rest. Pure.

    hash = SHA-256 of canonical {"v": 1, "chain", "seq", "at", "kind", "facts", "prev"}      prev of the first: 64 zeros

There is one chain for each run, called by its id, and one for the installation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moat.audit.canonical import canonical, parsed, quoted

VERSION = 1
INSTALLATION = "installation"
BEFORE_THE_FIRST = "0" * 64
# What an entry of either chain makes the other hold, so that none is there alone.
STARTED, ENDED, RUN_STARTED, RUN_ENDED = "started", "ended", "run-started", "run-ended"
GAP, DAEMON_STARTED, DAEMON_STOPPED = "gap", "daemon-started", "daemon-stopped"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. at: ISO 8601, UTC, by the clock of then: seq is what tells the order. facts: canonical JSON."""

    chain: str
    seq: int
    at: str
    kind: str
    facts: str
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class Tip:
    """Where a chain ends: number and hash of its last entry."""

    seq: int = 0
    hash: str = BEFORE_THE_FIRST


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and with which entry. seq: 0 where no entry of the chain is meant."""

    chain: str
    seq: int
    problem: str


def linked(chain: str, tip: Tip, at: str, kind: str, facts: Mapping[str, object]) -> Entry:
    """Return the entry that comes after tip. Raises ValueError for facts that cannot be written."""
    text = canonical(dict(facts)).decode()
    return Entry(chain, tip.seq + 1, at, kind, text, tip.hash, _digest(chain, tip.seq + 1, at, kind, text, tip.hash))


def check(chain: str, entries: Iterable[Entry]) -> tuple[list[str], Fault | None]:
    """Return the hashes of a chain's entries, in order, and the first fault; those before it are sound."""
    hashes: list[str] = []
    tip = Tip()
    for entry in entries:
        if problem := _problem(chain, tip, entry):
            return hashes, Fault(chain, tip.seq + 1, problem)
        hashes.append(entry.hash)
        tip = Tip(entry.seq, entry.hash)
    return hashes, None


def _problem(chain: str, tip: Tip, entry: Entry) -> str:
    if entry.chain != chain:
        return "it belongs to another chain"
    if entry.seq != tip.seq + 1:
        return "it is missing" if entry.seq > tip.seq + 1 else "it is there twice, or out of order"
    try:
        parsed(entry.facts)
        expected = _digest(chain, entry.seq, entry.at, entry.kind, entry.facts, entry.prev)
    except (ValueError, AttributeError) as failure:
        return f"it was changed: {failure}"
    if expected != entry.hash:
        return "it was changed: its hash is not that of its contents"
    if entry.prev != tip.hash:
        return "it does not follow the one before it: entries were changed, removed or put in"
    return ""


def _digest(chain: str, seq: int, at: str, kind: str, facts: str, prev: str) -> str:
    """Return the hash of an entry. facts: canonical, and so is the whole: its names are in their order here."""
    whole = (f'{{"at":{quoted(at)},"chain":{quoted(chain)},"facts":{facts},"kind":{quoted(kind)},'
             f'"prev":{quoted(prev)},"seq":{seq},"v":{VERSION}}}')  # fmt: skip
    return hashlib.sha256(whole.encode()).hexdigest()
