"""A log with two runs, signed, and what is remembered apart from it; and ways to change it as somebody else would."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from moat.audit.chain import DAEMON_STARTED, DAEMON_STOPPED, ENDED, INSTALLATION, STARTED, Entry, Tip, linked
from moat.audit.heads import Anchor, Head, public_key_of, sign
from moat.audit.log import AuditLog, Note
from moat.audit.reading import AuditReader
from moat.audit.verify import Pin, Report

SEED, OTHER_SEED = b"\x01" * 32, b"\x02" * 32
KEY = public_key_of(SEED)
RUN, LIVE = "run_00000000000a", "run_00000000000b"
AT = "2026-01-01T00:00:00.000+00:00"


def a_note(chain: str, kind: str, **facts: object) -> Note:
    return Note(chain, AT, kind, facts)


HAPPENED = [
    a_note(INSTALLATION, DAEMON_STARTED, version="1"),
    a_note(INSTALLATION, "granted", grant="github"),
    a_note(RUN, STARTED, name="calm-otter"),
    a_note(RUN, "used", grant="github", authority="https://api.github.com", via="connect", tunnel=1),
    a_note(LIVE, STARTED, name="keen-heron"),
    a_note(RUN, "denied", denials=[{"authority": "https://evil.example", "count": 3}]),
    a_note(LIVE, "used", grant="github", authority="https://api.github.com", via="connect", tunnel=2),
    a_note(LIVE, "used-again", uses=[{"grant": "github", "count": 7}]),
    a_note(RUN, ENDED, state="stopped", exit_code=0),
    a_note(INSTALLATION, DAEMON_STOPPED),
]


@dataclass
class Made:
    """A log on the disk and the pin that belongs to it."""

    path: Path
    pin: Pin

    def report(self, pin: Pin | None = None) -> Report:
        with AuditReader(self.path) as reader:
            return reader.verify(pin or self.pin)

    def faults(self, pin: Pin | None = None) -> list[tuple[str, int]]:
        return [(fault.chain, fault.seq) for fault in self.report(pin).faults]

    @contextmanager
    def changed(self) -> Iterator[sqlite3.Connection]:
        """Give what somebody who can write the file has."""
        with closing(sqlite3.connect(self.path)) as db:
            yield db
            db.commit()

    def entries(self, chain: str) -> list[Entry]:
        with AuditReader(self.path) as reader:
            return list(reader.entries(chain))


def seal(log: AuditLog, counter: int, seed: bytes = SEED) -> Anchor:
    """Sign everything, as the daemon does."""
    tips = log.tips()
    live = {name: tip for name, tip in tips.items() if name != INSTALLATION}
    heads = [Head(name, tip, counter, AT) for name, tip in log.unsealed().items() if name != INSTALLATION]
    heads.append(Head(INSTALLATION, tips[INSTALLATION], counter, AT, live))
    log.put_heads([sign(seed, head) for head in heads])
    return Anchor(counter, tips[INSTALLATION])


def made(path: Path, *, happened: list[Note] | None = None) -> Made:
    with closing(AuditLog(path)) as log:
        log.append(HAPPENED if happened is None else happened)
        anchor = seal(log, 1)
    return Made(path, Pin(KEY, anchor))


def rebuilt(made: Made, chain: str, change: Callable[[list[Entry]], list[Entry]]) -> None:
    """Change entries of a chain and compute all hashes anew, as somebody who knows how it is done would."""
    import json

    tip, fresh = Tip(), []
    for entry in change(made.entries(chain)):
        entry = linked(chain, tip, entry.at, entry.kind, json.loads(entry.facts))
        fresh.append(entry)
        tip = Tip(entry.seq, entry.hash)
    with made.changed() as db:
        db.execute("DELETE FROM entries WHERE chain = ?", (chain,))
        rows = [(each.chain, each.seq, each.at, each.kind, each.facts, each.prev, each.hash) for each in fresh]
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
