"""Keeps the daemon where others look for it: its socket, its lock and its card come back when somebody removes them.

every second:  lock ours? ─ taken by another ─▶ leave, the runs are its    card there?    socket there? ─▶ bound again
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from moat.api.errors import MoatError
from moat.daemon.process import hold_lock, read_card
from moat.daemon.server import MAX_CONNECTIONS_WAITING, bind
from moat.paths import Home

LOOK_EVERY_S = 1.0

log = logging.getLogger(__name__)


class Presence:
    """What must be there. runner: of the server; lock: descriptor; write_card: makes one; leave: when replaced."""

    def __init__(
        self, home: Home, runner: web.AppRunner, lock: int, write_card: Callable[[], None], leave: Callable[[], None]
    ) -> None:
        self._home = home
        self._runner = runner
        self._held = lock
        self._write_card = write_card
        self._leave = leave
        self._socket = _identity(home.daemon / "daemon.sock")
        self._lock = _identity(home.daemon / "daemon.lock")

    async def forever(self) -> None:
        """Look every second, until cancelled or replaced."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                if not await self.look():
                    return
            except (OSError, MoatError) as failure:  # a disk that is full may have room the next time
                log.warning("the daemon cannot be made to be found", extra={"problem": str(failure)})

    async def look(self) -> bool:
        """Put back what is missing; return whether this is still the daemon."""
        if _identity(self._home.daemon / "daemon.lock") != self._lock:
            if (again := hold_lock(self._home, is_own=True)) is None:
                log.error("another daemon has taken this one's place")
                self._leave()
                return False
            os.close(self._held)  # of the file that was removed: a lock is of its file
            self._held, self._lock = again, _identity(self._home.daemon / "daemon.lock")
            log.warning("the daemon's lock was removed, and taken again")
        card = read_card(self._home)
        if card is None or card.pid != os.getpid():
            self._write_card()
        if _identity(self._home.daemon / "daemon.sock") != self._socket:
            before = list(self._runner.sites)
            sock = bind(self._home.daemon / "daemon.sock")
            await web.SockSite(self._runner, sock, backlog=MAX_CONNECTIONS_WAITING).start()
            for site in before:  # nobody can come there any more; who is connected stays
                await site.stop()
            self._socket = _identity(self._home.daemon / "daemon.sock")
            log.warning("the daemon's socket was removed, and made again")
        return True


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
