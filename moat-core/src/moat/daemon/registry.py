"""Which runs are live: token → entry, immutable and replaced whole, so that a reader always holds a consistent one.

Tokens are kept as their SHA-256 and compared in constant time. An entry is published only when it is fully built.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from moat.api.errors import DaemonError, RunNotFound
from moat.api.runs import RunContext, RunInfo
from moat.daemon.extras import Extras

MAX_ENDED = 1_000  # a CLI asks for the run that it ended within seconds
MAX_RECENT = 16  # whole entries, with their rules: a token request that outlives its run takes a minute


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run's requests come from, and how it is known again by a later daemon.

    needs_door: through sockets that its gate hands over. nonce_sha256: of what the gate must say. cookie: the network
    namespace that it proved to be in, 0 before. listen_on, port: the address of its own where a run without a door is
    served; the shared one without. launcher: id of the process without which the run is over, where neither a door nor
    a process of its own tells; began: when that process started, in clock ticks after boot.
    """

    needs_door: bool = True
    nonce_sha256: str = ""
    cookie: int = 0
    listen_on: str = ""
    port: int = 0
    launcher: str = ""
    began: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One live run: what the proxy sees, what is written down, where its requests come from, what came with it.

    needs: capabilities without which a daemon would serve it otherwise than it was asked for. unread: as JSON, a run
    that this daemon lacks one for, and hands on as it is.
    """

    context: RunContext = field(repr=False)
    info: RunInfo
    place: Place = field(default_factory=Place)
    extras: Extras = field(default_factory=Extras, repr=False)
    needs: tuple[str, ...] = ()
    unread: str = field(default="", repr=False)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.info.run_id


class Registry:
    """All live runs, and for a while who has ended. Used by one event loop; nothing in it waits.

    on_change: told of everything; of counters only when asked to (`tell_counts`), since they never rest.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.on_change = on_change
        self._entries: dict[str, Entry] = {}
        self._has_counted = False
        self._ended: OrderedDict[str, str] = OrderedDict()
        self._recent: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def publish(self, entry: Entry) -> None:
        """Add a run. Raises DaemonError when its id or its token is taken."""
        if entry.run_id in self._entries:
            raise DaemonError(f"{entry.run_id} is registered already", hint="run: moat list")
        if self._holder(entry.context.token_sha256) is not None:
            raise DaemonError("the run token belongs to another run", hint="register without auth_token")
        self._entries[entry.run_id] = entry
        self.on_change()

    def replace(self, entry: Entry) -> None:
        """Replace a live run's entry; a run that has ended meanwhile stays ended."""
        if entry.run_id in self._entries:
            self._entries[entry.run_id] = entry
            self.on_change()

    def count(self, run_id: str, requests: int, *, denied: int) -> bool:
        """Count exchanges of a live run; return whether it is one."""
        entry = self._entries.get(run_id)
        if entry is None:
            return False
        info = replace(entry.info, requests=entry.info.requests + requests, denied=entry.info.denied + denied)
        self._entries[run_id] = replace(entry, info=info)
        self._has_counted = True
        return True

    def tell_counts(self) -> None:
        """Tell of what was counted since the last time, if anything was."""
        if self._has_counted:
            self._has_counted = False
            self.on_change()

    def remove(self, run_id: str) -> Entry | None:
        """Forget a live run and remember its token as ended; None when it was not live."""
        entry = self._entries.pop(run_id, None)
        if entry is not None:
            self.on_change()
            self._recent[run_id] = entry
            while len(self._recent) > MAX_RECENT:
                self._recent.popitem(last=False)
            self._ended[entry.context.token_sha256] = run_id
            while len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)
        return entry

    def get(self, run_id: str) -> Entry | None:
        """Return a live run, or None."""
        return self._entries.get(run_id)

    def recent(self, run_id: str) -> Entry | None:
        """Return a run that is live, or was not long ago: what it began may end after it. None for any other."""
        return self._entries.get(run_id) or self._recent.get(run_id)

    def with_token(self, token: str) -> Entry:
        """Return the live run that a token belongs to. Raises RunNotFound, whatever is wrong with the token."""
        entry = self._holder(hash_token(token))
        if entry is None:
            raise RunNotFound("no live run has this token", hint="run: moat list")
        return entry

    def ended_with_token(self, token: str) -> str | None:
        """Return the id of a run that ended not long ago and had this token, or None."""
        wanted = hash_token(token)
        return next((run_id for known, run_id in self._ended.items() if hmac.compare_digest(known, wanted)), None)

    def _holder(self, token_sha256: str) -> Entry | None:
        found: Entry | None = None
        for entry in self._entries.values():  # all of them, so that the time says nothing about which one
            if hmac.compare_digest(entry.context.token_sha256, token_sha256):
                found = entry
        return found


def hash_token(token: str) -> str:
    """Return what is kept of a run token."""
    return hashlib.sha256(token.encode()).hexdigest()
