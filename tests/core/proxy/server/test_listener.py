from __future__ import annotations

import errno
import socket

import pytest
from moat.proxy.server import listener as module
from moat.proxy.server.listener import Listener

from core.proxy.server.pairs import until


def a_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


async def test_connections_are_accepted_without_delay_and_without_blocking() -> None:
    sock, accepted = a_socket(), list[socket.socket]()
    listener = Listener(sock, accepted.append)
    sock.setblocking(True)  # another holder's doing
    with socket.create_connection(sock.getsockname()), socket.create_connection(sock.getsockname()):
        await until(lambda: len(accepted) == 2)
    listener.close()

    for each in accepted:
        assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not each.getblocking()
        assert (each.family, each.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert type(each.family) is int
        each.close()


async def test_a_paused_listener_leaves_connections_in_the_backlog() -> None:
    sock, accepted = a_socket(), list[socket.socket]()
    listener = Listener(sock, accepted.append)
    listener.pause()
    with socket.create_connection(sock.getsockname()):
        assert accepted == []
        listener.resume()
        await until(lambda: len(accepted) == 1)
    listener.close()
    listener.close()
    accepted[0].close()


async def test_running_out_of_descriptors_only_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(socket.socket):
        failures = 1

        def _accept(self) -> tuple[int, object]:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "too many open files")
            number, peer = super()._accept()  # type: ignore[misc]  # of the class in C, without a stub
            return number, peer

    monkeypatch.setattr(module, "BACK_OFF_S", 0)
    plain = a_socket()
    sock, accepted = Failing(fileno=plain.detach()), list[socket.socket]()
    listener = Listener(sock, accepted.append)
    with socket.create_connection(sock.getsockname()):
        await until(lambda: len(accepted) == 1)
    listener.close()
    accepted[0].close()


async def test_closing_closes_only_this_copy() -> None:
    sock = a_socket()
    with sock.dup() as gates:
        Listener(sock, lambda _: None).close()
        socket.create_connection(gates.getsockname()).close()
