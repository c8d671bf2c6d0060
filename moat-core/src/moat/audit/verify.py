"""Is the log whole, and is it what was signed? Pure: what is kept is handed in, and the first fault is named.

chains    every entry has the hash of its contents, and follows the one before it
heads     signed by the key that is pinned; the chain has what they say, and as much
between   the installation's chain and its head name every run, with where it ended or was
anchor    what is remembered apart from the log is in it, and is not later than it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from moat.audit.canonical import parsed
from moat.audit.chain import (
    DAEMON_STARTED,
    DAEMON_STOPPED,
    ENDED,
    GAP,
    INSTALLATION,
    RUN_ENDED,
    RUN_STARTED,
    Entry,
    Fault,
    Tip,
    check,
)
from moat.audit.heads import Anchor, Head, Signed, is_signed_by, read

_TOLD = (RUN_STARTED, RUN_ENDED, GAP, DAEMON_STARTED, DAEMON_STOPPED)


@dataclass(frozen=True, slots=True)
class Pin:
    """What is known apart from the log. public_key: hex, "" where nobody vouches for one. anchor: None for none."""

    public_key: str = ""
    anchor: Anchor | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. faults: in the order of their weight; none for a log that is whole. entries: how many were read.

    unsealed: entries after the latest signed heads, which nobody vouches for yet. is_closed: whether the daemon ended
    as it should, so that nothing was in its memory only; None where that is not asked. is_over: whether the run is.
    """

    faults: tuple[Fault, ...] = ()
    chains: int = 0
    entries: int = 0
    unsealed: int = 0
    is_pinned: bool = False
    is_closed: bool | None = None
    is_over: bool = False
    head: Head | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


@dataclass(slots=True)
class _Seen:
    """One chain as it was read. hashes: of its sound entries. kinds of interest only are kept in told."""

    hashes: list[str]
    fault: Fault | None
    told: list[Entry] = field(default_factory=list)
    is_over: bool = False

    def has(self, tip: Tip) -> bool:
        """Whether the chain has this entry with this hash."""
        return 0 < tip.seq <= len(self.hashes) and self.hashes[tip.seq - 1] == tip.hash


def verify_log(chains: Mapping[str, Iterable[Entry]], signed: Sequence[Signed], pin: Pin) -> Report:
    """Return what is to be said of a whole log."""
    seen = {name: _read(name, entries) for name, entries in chains.items()}
    installation = seen.setdefault(INSTALLATION, _Seen([], None))
    heads, faults = _heads(signed, pin)
    faults = [each.fault for each in seen.values() if each.fault is not None] + faults
    for name, head in heads.items():
        faults += _against(name, head.tip, seen.get(name), "it was signed")
    faults += _between(seen, heads.get(INSTALLATION))
    faults += _anchored(installation, heads.get(INSTALLATION), pin.anchor)
    sealed = {name: head.tip.seq for name, head in heads.items()}
    unsealed = sum(max(0, len(each.hashes) - sealed.get(name, 0)) for name, each in seen.items())
    last = installation.told[-1].kind if installation.told else ""
    return Report(
        tuple(_distinct(faults)),
        len(seen),
        sum(len(each.hashes) for each in seen.values()),
        unsealed,
        bool(pin.public_key),
        last == DAEMON_STOPPED and bool(installation.told) and installation.told[-1].seq == len(installation.hashes),
        head=heads.get(INSTALLATION),
    )


def verify_chain(chain: str, entries: Iterable[Entry], signed: Signed | None, pin: Pin) -> Report:
    """Return what is to be said of one chain and its signed head, as a bundle holds them."""
    seen = _read(chain, entries)
    heads, faults = _heads([] if signed is None else [signed], pin)
    head = heads.get(chain)
    if seen.fault is not None:
        faults = [seen.fault, *faults]
    elif head is not None:
        faults += _against(chain, head.tip, seen, "it was signed")
    elif not faults:
        faults.append(Fault(chain, 0, "nobody signed it"))
    sealed = head.tip.seq if head is not None else 0
    unsealed = max(0, len(seen.hashes) - sealed)
    is_pinned = bool(pin.public_key)
    return Report(tuple(faults), 1, len(seen.hashes), unsealed, is_pinned, None, seen.is_over, head)


def _read(name: str, entries: Iterable[Entry]) -> _Seen:
    told: list[Entry] = []
    last: list[str] = [""]

    def noticed() -> Iterator[Entry]:
        for entry in entries:
            last[0] = entry.kind
            if name == INSTALLATION and entry.kind in _TOLD:
                told.append(entry)
            yield entry

    hashes, fault = check(name, noticed())
    sound = [entry for entry in told if entry.seq <= len(hashes) and hashes[entry.seq - 1] == entry.hash]
    return _Seen(hashes, fault, sound, last[0] == ENDED)


def _heads(signed: Sequence[Signed], pin: Pin) -> tuple[dict[str, Head], list[Fault]]:
    """Return what is signed, by chain, and the faults of what is not."""
    heads: dict[str, Head] = {}
    faults: list[Fault] = []
    for each in signed:
        try:
            head = read(each)
        except ValueError as failure:
            faults.append(Fault(each.chain, 0, f"its signed head cannot be read: {failure}"))
            continue
        if pin.public_key and not is_signed_by(pin.public_key, each):
            faults.append(Fault(each.chain, head.tip.seq, "its head was changed, or signed with another key"))
        elif head.chain != each.chain:
            faults.append(Fault(each.chain, 0, "its signed head is that of another chain"))
        else:
            heads[each.chain] = head
    return heads, faults


def _against(name: str, tip: Tip, seen: _Seen | None, since: str) -> Iterator[Fault]:
    """Yield what a chain lacks of what somebody vouches for. A chain that is faulty before that is told already."""
    if seen is None or (seen.fault is None and len(seen.hashes) < tip.seq):
        missing = 1 if seen is None else len(seen.hashes) + 1
        yield Fault(name, missing, f"it is missing, with all up to {tip.seq}: cut off since {since}")
    elif not seen.has(tip) and (seen.fault is None or seen.fault.seq > tip.seq):
        yield Fault(name, tip.seq, f"it, or one before it, is another than when {since}: the chain was made anew")


def _between(seen: Mapping[str, _Seen], head: Head | None) -> Iterator[Fault]:
    """Yield where the installation's chain and the runs' do not agree."""
    begun: set[str] = set()
    for entry in seen[INSTALLATION].told:
        if entry.kind == GAP:
            yield Fault(INSTALLATION, entry.seq, "the log before it was taken away, or put back to an older one")
        elif entry.kind in (RUN_STARTED, RUN_ENDED):
            facts = parsed(entry.facts)
            begun.add(str(facts["run"]))
            yield from _of_run(seen, str(facts["run"]), facts, is_over=entry.kind == RUN_ENDED)
    for run, tip in (head.live if head is not None else {}).items():
        yield from _against(run, tip, seen.get(run), "the installation's head was signed")
    if seen[INSTALLATION].fault is None:
        for run in seen.keys() - begun - {INSTALLATION}:
            yield Fault(run, 1, "the installation's chain knows no such run: it was put in")


def _of_run(seen: Mapping[str, _Seen], run: str, facts: Mapping[str, object], *, is_over: bool) -> Iterator[Fault]:
    """Yield where a run's chain is not what the installation's says of its beginning or its end."""
    tip = Tip(int(str(facts["seq"])) if is_over else 1, str(facts["hash"]))
    yield from _against(run, tip, seen.get(run), "its run ended" if is_over else "its run began")
    if is_over and run in seen and len(seen[run].hashes) > tip.seq:
        yield Fault(run, tip.seq + 1, "it was put in after its run had ended")


def _anchored(installation: _Seen, head: Head | None, anchor: Anchor | None) -> Iterator[Fault]:
    if anchor is None or not anchor.counter:
        return
    if head is None:
        what = f"its signed head is missing: head {anchor.counter} is remembered"
        yield Fault(INSTALLATION, len(installation.hashes), what)
    elif head.counter < anchor.counter:
        what = f"it is older than what is remembered: head {head.counter}, and there was head {anchor.counter}"
        yield Fault(INSTALLATION, head.tip.seq, what)
    yield from _against(INSTALLATION, anchor.tip, installation, "it was remembered apart from the log")


def _distinct(faults: Iterable[Fault]) -> Iterator[Fault]:
    """Yield each entry's first fault only: the later ones follow from it."""
    known: set[tuple[str, int]] = set()
    for fault in faults:
        if (fault.chain, fault.seq) not in known:
            known.add((fault.chain, fault.seq))
            yield fault
