"""One run's chain with its signed head, as one JSON file that is verified without anything of moat's. Pure.

    {"format": "moat-audit", "version": 1, "chain", "public_key", "head": {"statement", "signature"}, "entries": […]}

The public key in it says who signed only to whom it was told in another way, too: docs/audit.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from moat.api.errors import MoatError, UsageError
from moat.audit.canonical import parsed
from moat.audit.chain import Entry, Fault
from moat.audit.heads import Signed
from moat.audit.verify import Pin, Report, verify_chain

FORMAT, VERSION = "moat-audit", 1


@dataclass(frozen=True, slots=True)
class Bundle:
    """What such a file holds."""

    chain: str
    public_key: str
    signed: Signed
    entries: tuple[Entry, ...]


def render(bundle: Bundle) -> bytes:
    """Return the file's contents."""
    signed = {"statement": bundle.signed.statement, "signature": bundle.signed.signature}
    whole = {"format": FORMAT, "version": VERSION, "chain": bundle.chain, "public_key": bundle.public_key,
             "head": signed, "entries": [as_object(entry) for entry in bundle.entries]}  # fmt: skip
    return json.dumps(whole, indent=1, ensure_ascii=False).encode() + b"\n"


def read_bundle(data: bytes) -> Bundle:
    """Return what a file holds; nothing of it is proven. MoatError: it is none. UsageError: a later one."""
    try:
        whole = json.loads(data)
        if whole["format"] != FORMAT:
            raise ValueError
        if whole["version"] != VERSION:
            raise UsageError(f"the bundle's format is {whole['version']!r}, and this moat reads {VERSION}")
        head = whole["head"]
        signed = Signed(str(whole["chain"]), str(head["statement"]), str(head["signature"]))
        entries = tuple(_entry(each) for each in whole["entries"])
        return Bundle(str(whole["chain"]), str(whole["public_key"]), signed, entries)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MoatError("the file is no bundle of moat audit export, or is broken") from None


def verify_bundle(bundle: Bundle, pin: Pin) -> Report:
    """Return what is to be said of a bundle. Without a pinned key its own is taken: then it is consistent, no more."""
    by = pin if pin.public_key else Pin(bundle.public_key)
    report = verify_chain(bundle.chain, bundle.entries, bundle.signed, by)
    faults = report.faults
    if not faults and report.unsealed:
        sealed = report.entries - report.unsealed
        faults = (Fault(bundle.chain, sealed + 1, "it was put in after the head was signed"),)
    return Report(
        faults, 1, report.entries, report.unsealed, bool(pin.public_key), None, report.is_over, report.head
    )  # fmt: skip


def sealed_only(entries: Sequence[Entry], seq: int) -> tuple[Entry, ...]:
    """Return the entries that a head vouches for."""
    return tuple(entry for entry in entries if entry.seq <= seq)


def as_object(entry: Entry) -> dict[str, object]:
    """Return an entry as JSON shows it, its facts as an object."""
    try:
        facts = parsed(entry.facts)
    except ValueError:
        facts = entry.facts  # of a log that was changed
    return {"chain": entry.chain, "seq": entry.seq, "at": entry.at, "kind": entry.kind, "facts": facts,
            "prev": entry.prev, "hash": entry.hash}  # fmt: skip


def _entry(each: dict[str, object]) -> Entry:
    facts = json.dumps(each["facts"], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    seq = each["seq"]
    if type(seq) is not int:
        raise ValueError
    chain, at, kind, prev, digest = (str(each[name]) for name in ("chain", "at", "kind", "prev", "hash"))
    return Entry(chain, seq, at, kind, facts, prev, digest)
