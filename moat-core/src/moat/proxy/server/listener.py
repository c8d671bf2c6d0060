"""Accepts connections on a socket that others hold too, without ever blocking the loop or giving up.

The socket's description is shared with the gate (and the daemon), whose flags nobody can rely on: O_NONBLOCK is
asserted before each accept. Whether another connection waits is asked ahead: an accept in vain costs three times that.
"""

from __future__ import annotations

import _socket
import asyncio
import logging
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress

ACCEPTS_A_TURN = 64  # then the loop serves others
BACK_OFF_S = 0.1  # out of descriptors or memory: connections wait in the backlog meanwhile

log = logging.getLogger(__name__)


class _Accepted(socket.socket):
    """A socket that says its family and kind in numbers: the loop asks for them, and enums cost more than accepting."""

    family = _socket.socket.family  # type: ignore[assignment]  # an IntEnum's plain value
    type = _socket.socket.type  # type: ignore[assignment]  # the same


class Listener:
    """One listening socket. on_socket takes each accepted connection over. Takes the listening socket over."""

    def __init__(self, sock: socket.socket, on_socket: Callable[[socket.socket], None]) -> None:
        self._sock = sock
        self._on_socket = on_socket
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_listening = False
        waiting = select.poll()
        waiting.register(sock.fileno(), select.POLLIN)
        self._waiting = waiting.poll
        self._kind = int(sock.family), int(sock.type), sock.proto
        with suppress(OSError):  # what is accepted has them too (tcp(7)); a unix socket has neither
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.resume()

    def pause(self) -> None:
        """Leave further connections in the backlog."""
        if self._is_listening:
            self._loop.remove_reader(self._sock.fileno())
            self._is_listening = False

    def resume(self) -> None:
        """Accept again."""
        if not self._is_listening and self._sock.fileno() >= 0:
            self._is_listening = True
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def close(self) -> None:
        """Stop, and close this process's copy of the socket; the gate's keeps the address."""
        self.pause()
        if self._timer is not None:
            self._timer.cancel()
        self._sock.close()

    def _readable(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if not self._is_listening or not self._accept() or not self._waiting(0):
                return

    def _accept(self) -> bool:
        try:
            os.set_blocking(self._sock.fileno(), False)
            number, _ = self._sock._accept()  # type: ignore[attr-defined]  # what accept makes its socket of
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:  # it was aborted in the backlog (accept(2)); the next one may be fine
            return True
        except OSError as error:
            log.warning("cannot accept", extra={"errno": error.errno})
            self._back_off()
            return False
        accepted = _Accepted(*self._kind, fileno=number)
        accepted.setblocking(False)
        self._on_socket(accepted)
        return True

    def _back_off(self) -> None:
        self.pause()
        self._timer = self._loop.call_later(BACK_OFF_S, self.resume)
