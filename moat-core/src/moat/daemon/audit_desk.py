"""Enters first uses into the audit: a thread for each worker, at a socket that is for nothing else.

    worker ─ Spends ─▶ socket ─▶ thread ─▶ one transaction, one sync ─▶ Entered ─▶ worker

Eight tunnels at once cost the daemon's loop nothing: it is not woken, and hands nothing from thread to thread. Who else
writes (`auditor`) takes turns with the threads here. Decides nothing but whether a run is live.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from moat.api.errors import AuditUnwritable
from moat.audit.canonical import plain
from moat.audit.log import Note
from moat.daemon.audit_notes import RUN_OVER
from moat.daemon.registration import now
from moat.frames import HEADER, LIMIT_BYTES, Message
from moat.frames import encode as framed
from moat.proxy.entering import Entered, Spends
from moat.proxy.messages import decode, encode

NOT_LIVE = "no live run spends it"
_Kind: TypeAlias = tuple[str, str, str, str]  # run, grant, authority, ingress

log = logging.getLogger(__name__)


class Desk:
    """Where workers ask. append: enters notes, all or none, and tells which were taken; raises AuditUnwritable."""

    def __init__(self, append: Callable[[Sequence[Note]], Sequence[bool]], is_live: Callable[[str], bool]) -> None:
        self._append = append
        self._is_live = is_live

    def open(self, sock: socket.socket) -> None:
        """Serve a worker until it is gone. Takes the socket over; it blocks."""
        threading.Thread(target=self._serve, args=(sock,), name="audit-desk", daemon=True).start()

    def enter(self, spends: Spends) -> Entered:
        """Enter first uses, those of one message at once, and return what to answer. Blocking.

        What differs in its tunnel only is one entry: a hundred tunnels to one API that begin together are.
        """
        uses = spends.uses
        problems = ["" if each.grants and self._is_live(each.run_id) else NOT_LIVE for each in uses]
        alike: dict[_Kind, list[int]] = {}
        for number, use in enumerate(uses):
            if not problems[number]:
                for grant in use.grants:
                    alike.setdefault((use.run_id, grant, use.authority, use.via), []).append(number)
        at = now()
        notes = [_note(kind, at, [uses[number].tunnel for number in numbers]) for kind, numbers in alike.items()]
        try:
            taken = self._append(notes) if notes else ()
        except AuditUnwritable as failure:
            return Entered(spends.id, tuple(problem or failure.problem for problem in problems))
        for numbers, is_taken in zip(alike.values(), taken, strict=True):
            for number in numbers if not is_taken else ():
                problems[number] = RUN_OVER
        return Entered(spends.id, tuple(problems) if any(problems) else ())

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as received:
            try:
                while (message := _read(received.read)) is not None:
                    spends = decode(message)
                    if isinstance(spends, Spends):
                        sock.sendall(framed(encode(self.enter(spends))))
            except (OSError, ValueError) as failure:  # gone in the middle, or no worker of ours: it is replaced
                log.warning("a worker's questions about the audit broke off", extra={"problem": str(failure)})


def _read(read: Callable[[int], bytes]) -> Message | None:
    """Return the next message, None at the end. Raises ValueError."""
    header = read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    length, _ = HEADER.unpack(header)
    if length > LIMIT_BYTES:
        raise ValueError(f"a frame of {length} bytes is over the limit")
    message = json.loads(read(length) or b"null")
    if not isinstance(message, dict):
        raise ValueError("a frame is not a JSON object")
    return message


def _note(kind: _Kind, at: str, tunnels: list[int]) -> Note:
    run_id, *told = kind
    grant, authority, via = map(plain, told)
    which: dict[str, object] = {"tunnel": tunnels[0]} if len(tunnels) == 1 else {"tunnels": tunnels}
    return Note(run_id, at, "used", {"grant": grant, "authority": authority, "via": via, **which})
