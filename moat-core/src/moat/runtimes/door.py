"""The daemon's side of the door: takes a gate's sockets, trusts nothing about them, judges whether the run is sealed.

    listener.accept() ─▶ admit: hello + descriptors ─▶ nonce, count, kind, place, options, namespace ─▶ hand_on (worker)
                                 probe ─▶ gate looks around ─▶ probed ─▶ judged ─▶ OpenDoor ─▶ open() ─▶ the run starts
    OpenDoor.watch(): the gate's reports, until it is gone.   OpenDoor.connect(port): a connection into the run.

Any doubt refuses: the gate is told why, everything that came is closed, SandboxFailed is raised.
Knows neither registry nor worker: what must be done with the sockets comes in as a callable.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moat.api.errors import SandboxFailed
from moat.frames import FrameChannel, FrameError
from moat.paths import bind_by_folder, private_folder
from moat.runtimes import gate, places
from moat.runtimes.canary import Canary

HELLO_S = 5.0  # the gate says hello as soon as it has connected
PROBED_S = 30.0  # a canary on each address, half a second at most where a filter swallows it, and the worker's answer
CONNECT_S = 5.0  # the gate gives up after two
FRAME_BYTES = 1024 * 1024
FALLBACK_TUNNELS = ("tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HandedSocket:
    """One socket of a run's door. name: proxy, http, tls, dns-udp, dns-tcp, or of a place. sock: ours to close."""

    name: str
    sock: socket.socket


HandOn = Callable[[Sequence[HandedSocket]], Awaitable[None]]


class DoorListener:
    """The door's unix socket, alone in the run's own folder."""

    def __init__(self, folder: Path) -> None:
        self._path = private_folder(folder) / "door.sock"
        self._path.unlink(missing_ok=True)
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.setblocking(False)
        bind_by_folder(self._sock, self._path)  # a run can read its peers' names in /proc/net/unix
        self._path.chmod(0o600)
        self._sock.listen(8)

    async def accept(self) -> FrameChannel:
        """Return the next connection. Whether it is the gate is for admit to find out."""
        connection, _ = await asyncio.get_running_loop().sock_accept(self._sock)
        return FrameChannel(connection, limit_bytes=FRAME_BYTES)

    def close(self) -> None:
        """Stop listening. The folder stays: the gate holds it open, and looks in it for this daemon's successor."""
        self._sock.close()
        with contextlib.suppress(OSError):  # gone, or in a home that turned read-only: nobody listens either way
            self._path.unlink()

    def remove(self) -> None:
        """Stop listening for good: the run is over."""
        self.close()
        with contextlib.suppress(OSError):
            for place in self._path.parent.glob("*.sock"):  # of endpoints; the gate made them
                place.unlink()
            self._path.parent.rmdir()


class OpenDoor:
    """A door that was judged sealed. One task runs watch(); closing it lets go of the sockets, not of the run."""

    def __init__(self, channel: FrameChannel, sockets: Sequence[HandedSocket], cookie: int) -> None:
        self.sockets = tuple(sockets)
        self.cookie = cookie
        self.exit_code: int | None = None
        self._channel = channel
        self._waiting: dict[int, asyncio.Future[socket.socket]] = {}
        self._last_id = 0

    def open(self) -> None:
        """Tell the gate to start the command. The caller has opened the run for the proxy before."""
        self._channel.send({"type": "open"})

    async def watch(self) -> int | None:
        """Serve the gate's messages until it is gone; return the command's exit code, None if it was never reported."""
        try:
            while (frame := await self._channel.receive()) is not None:
                self._take(*frame)
        except FrameError as failure:
            log.warning("a gate broke the protocol", extra={"problem": str(failure)})
        finally:
            self.close()
        return self.exit_code

    async def connect(self, port: int) -> socket.socket:
        """Return a connection to a port of the run's, blocking and ours to close.

        Raises ConnectionError when nothing listens there, or the gate is gone.
        """
        if self._channel.is_closed:
            raise ConnectionError("the run's gate is gone")
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._channel.send({"type": "connect", "id": number, "port": port})
        try:
            async with asyncio.timeout(CONNECT_S):
                return await answer
        except TimeoutError:
            raise ConnectionError(f"the run's gate did not connect to port {port} in time") from None
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """Close the channel and our copies of the sockets. Safe to call twice."""
        self._channel.close()
        for handed in self.sockets:
            handed.sock.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the run's gate is gone"))

    def _take(self, message: Mapping[str, Any], descriptors: list[int]) -> None:
        sockets = []
        for number in descriptors:
            with contextlib.suppress(SandboxFailed):
                sockets.append(_socket(number))
        identity = message.get("id")
        answer = self._waiting.get(identity) if isinstance(identity, int) else None
        match message.get("type"):
            case "exited" if isinstance(message.get("code"), int):
                self.exit_code = message["code"]
            case "connected" if answer is not None and not answer.done() and len(sockets) == 1:
                answer.set_result(sockets.pop())
            case "unconnected" if answer is not None and not answer.done():
                answer.set_exception(ConnectionError(str(message.get("problem", "refused"))))
        for sock in sockets:
            sock.close()


async def admit(
    channel: FrameChannel,
    *,
    nonce: str = "",
    nonce_sha256: str = "",
    answer: str,
    taken_cookies: Collection[int],
    hand_on: HandOn,
    cookie: int = 0,
) -> OpenDoor:
    """Take a gate's sockets, hand them on, and have it prove that its run is sealed. The caller then calls open().

    nonce: what the gate must know, or nonce_sha256: its hash. cookie: for a run that comes back, the namespace that it
    must be in. answer: what the worker says at /_moat/probe on these sockets once hand_on returned.
    taken_cookies: of every other live run; for a run that comes back, not its own.
    Raises SandboxFailed after telling the gate why; the channel and everything that came are then closed.
    """
    handed: list[HandedSocket] = []
    try:
        secret = nonce_sha256 or (hash_nonce(nonce) if nonce else "")
        found = await _receive_sockets(channel, secret, taken_cookies, handed)
        if cookie and found != cookie:
            raise SandboxFailed("the gate's sockets are from another network namespace than before")
        await hand_on(handed)
        await _probe(channel, answer, found)
    except BaseException as failure:
        problem = failure.problem if isinstance(failure, SandboxFailed) else "the daemon could not take the door"
        channel.send({"type": "refused", "problem": problem})
        channel.close()
        for one in handed:
            one.sock.close()
        raise
    return OpenDoor(channel, handed, found)


def hash_nonce(nonce: str) -> str:
    """Return what is kept of a nonce."""
    return hashlib.sha256(nonce.encode()).hexdigest()


def netns_cookie(sock: socket.socket) -> int:
    """Return the number of the network namespace that a socket was made in, unique while the machine runs.

    Raises SandboxFailed on Linux before 5.14, which does not tell.
    """
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, gate.SO_NETNS_COOKIE, 8), sys.byteorder)
    except OSError:
        raise SandboxFailed("this kernel cannot tell network namespaces apart", hint="Linux 5.14 is needed") from None


def own_cookie() -> int:
    """Return the number of this process's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return netns_cookie(sock)


async def _receive_sockets(
    channel: FrameChannel, nonce_sha256: str, taken_cookies: Collection[int], handed: list[HandedSocket]
) -> int:
    hello, descriptors = await _frame(channel, HELLO_S)
    try:
        _check_hello(hello, nonce_sha256)
        layout = _layout(hello, len(descriptors))
        while descriptors:
            handed.append(HandedSocket(layout[len(handed)][0], _socket(descriptors.pop(0))))
    finally:
        for number in descriptors:
            os.close(number)
    for one, expected in zip(handed, layout, strict=True):
        _check_socket(one.sock, expected)
    return _check_cookies([netns_cookie(one.sock) for one in handed], taken_cookies)


def _check_hello(hello: Mapping[str, Any], nonce_sha256: str) -> None:
    if hello.get("type") != "hello" or hello.get("version") != gate.VERSION:
        raise SandboxFailed("the gate speaks another version of the protocol", hint="run: moat proxy stop")
    said = hello.get("nonce")
    if not nonce_sha256 or not isinstance(said, str) or not _is_same(_hashed(said), nonce_sha256):
        raise SandboxFailed("the gate does not know this run's nonce")


def _hashed(said: str) -> str:
    """Return the hash of what a gate said; JSON can hold what no encoding has (lone surrogates)."""
    return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()


def _layout(hello: Mapping[str, Any], count: int) -> tuple[tuple[str, str, str, int], ...]:
    """Return which door was announced: the full one or the small one, then places, with as many descriptors."""
    said = hello.get("sockets")
    for door in (gate.FULL_DOOR, gate.SMALL_DOOR):
        rows = [dict(zip(("name", "kind", "host", "port"), row, strict=True)) for row in door]
        if isinstance(said, list) and said[: len(rows)] == rows:
            layout = (*door, *places.announced(said[len(rows) :]))
            if count == len(layout):
                return layout
            raise SandboxFailed(f"the gate announced {len(layout)} sockets and handed over {count} descriptors")
    raise SandboxFailed("the gate announced sockets that are no door")


def _socket(descriptor: int) -> socket.socket:
    """Return a socket object for a descriptor that is one; closes it otherwise."""
    try:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return socket.socket(fileno=descriptor)
    except OSError:
        pass  # of no family that Python can name: as wrong as a file
    os.close(descriptor)
    raise SandboxFailed("the gate handed over a descriptor that is no socket")


def _check_socket(sock: socket.socket, expected: tuple[str, str, str, int]) -> None:
    """Refuse a socket that is not exactly what its place in the layout says, or that the run could share."""
    name, kind, host, port = expected
    if kind == "unix":
        return places.check_unix(sock, name)
    tcp = kind == "tcp"
    wanted_type, protocol = (socket.SOCK_STREAM, socket.IPPROTO_TCP) if tcp else (socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    if (sock.family, sock.type, sock.proto) != (socket.AF_INET, wanted_type, protocol):
        raise SandboxFailed(f"the gate's {name} socket is not IPv4 {kind}")
    if sock.getsockname() != (host, port):
        raise SandboxFailed(f"the gate's {name} socket is not bound to {host} port {port}")
    if _option(sock, socket.SO_ACCEPTCONN) != int(tcp) or _is_connected(sock):
        raise SandboxFailed(f"the gate's {name} socket is not waiting for clients")
    if _option(sock, socket.SO_REUSEPORT) or _option(sock, socket.SO_REUSEADDR):
        raise SandboxFailed(f"the gate's {name} socket lets others bind its port")
    return None


def _option(sock: socket.socket, option: int) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, option)


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _check_cookies(cookies: Sequence[int], taken_cookies: Collection[int]) -> int:
    cookie = cookies[0]
    if set(cookies) != {cookie}:
        raise SandboxFailed("the gate's sockets are from different network namespaces")
    if cookie == own_cookie():
        raise SandboxFailed("the gate's sockets are from the host's network namespace")
    if cookie in taken_cookies:
        raise SandboxFailed("the gate's sockets are from another run's network namespace")
    return cookie


async def _probe(channel: FrameChannel, answer: str, cookie: int) -> None:
    with Canary() as canary:
        targets = [list(address) for address in canary.addresses]
        channel.send({"type": "probe", "tcp": targets, "abstract": canary.abstract, "answer": answer})
        probed, descriptors = await _frame(channel, PROBED_S)
        for number in descriptors:
            os.close(number)
        try:
            problem = verdict(probed, answer=answer, cookie=cookie, visitors=canary.visitors())
        except (TypeError, ValueError):
            problem = "the gate did not say what it sees"
    if problem:
        raise SandboxFailed(problem)


def verdict(probed: Mapping[str, Any], *, answer: str, cookie: int, visitors: int) -> str:
    """Return why what the gate saw is not a sealed run; "" if it is. Pure."""
    told = [each for each in map(probed.get, ("interfaces", "routes", "reached")) if isinstance(each, list)]
    if probed.get("type") != "probed" or len(told) < 3 or ["lo", True] not in told[0]:
        return "the gate did not say what it sees"
    interfaces, routes, reached = told
    if links := [name for name, is_up in interfaces if name != "lo" and _is_link(name, is_up)]:
        return f"the run has a network interface: {', '.join(links)}"
    if routes:
        return "the run has a route out of its namespace"
    if reached:
        return f"the run can reach the host: {', '.join(reached)}"
    if visitors:
        return "something connected to the host's listeners while the run was tested"
    if probed.get("cookie") != cookie:
        return "the gate is in another network namespace than its sockets"
    if not _is_same(probed.get("answer"), answer):
        return "the proxy did not answer at the run's own door"
    return ""


def _is_same(said: object, secret: str) -> bool:
    """Compare in constant time; JSON can hold what no encoding has (lone surrogates)."""
    return isinstance(said, str) and hmac.compare_digest(said.encode(errors="surrogatepass"), secret.encode())


def _is_link(name: str, is_up: bool) -> bool:
    """Whether an interface leads anywhere: kernels put unconfigured tunnels into every namespace, down."""
    return is_up or name not in FALLBACK_TUNNELS


async def _frame(channel: FrameChannel, timeout_s: float) -> tuple[dict[str, Any], list[int]]:
    try:
        async with asyncio.timeout(timeout_s):
            frame = await channel.receive()
    except TimeoutError:
        raise SandboxFailed("the gate did not answer in time") from None
    except FrameError as failure:
        raise SandboxFailed(f"the gate broke the protocol: {failure}") from None
    if frame is None:
        raise SandboxFailed("the gate hung up")
    return frame
