"""CONNECTs that were let through, for when the same bytes come again: the tunnels of a run mostly begin alike. No I/O.

What is remembered was decided by the runs as they are: whoever changes one forgets all of it. Only what was let through
is there, so a token is guessed neither faster nor unseen by it. `http1` returns the same object for the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from moat.api.http import Authority
from moat.proxy.http1 import Request

MAX_CONNECTS = 256  # heads of some hundred bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT that was let through. run_id: whose it was found to be."""

    request: Request
    run_id: str
    target: Authority


class Connects:
    """The memory of all connections."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], Connect] = {}

    def find(self, door: str, only: str, request: Request) -> Connect | None:
        """Return what became of the same request. door: the run of its connection's door, only: the one it may be of.

        Either is "" where there is none.
        """
        known = self._known.get((door, only, id(request)))
        return known if known is not None and known.request is request else None

    def keep(self, door: str, only: str, connect: Connect) -> None:
        """Remember one that was let through; the oldest makes room."""
        if len(self._known) >= MAX_CONNECTS:
            del self._known[next(iter(self._known))]
        self._known[door, only, id(connect.request)] = connect

    def clear(self) -> None:
        """Forget all of them."""
        self._known.clear()
