"""What must hold whatever was sent: upstream gets whole requests that were asked, a client answers to what it asked."""

from __future__ import annotations

from collections import Counter

from support import strict
from support.strict import Message
from support.wire import Peer

from hostile.fuzz.stage import API, SECRET, Stage

ONE_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authorization",
    b"te",
    b"transfer-encoding",
    b"upgrade",
    b"http2-settings",
    b"proxy-authenticate",
}
OURS = {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te"}
CHANGED_FOR_THE_API = {b"authorization", b"accept-encoding", b"range", b"if-range"}


def check_upstream(stage: Stage, sent: bytes) -> list[Message]:
    """Check everything that reached an upstream against what one client sent; return the requests that did."""
    read = {peer: _read(peer) for peer in stage.seen}
    arrived = [(peer.name, read[peer][number]) for peer, number in stage.order]
    assert len(arrived) == sum(map(len, read.values()))
    asked = iter(strict.requests(sent).messages)
    for name, message in arrived:
        assert any(_is_same(name, came, message) for came in asked), f"{message.first} was not asked"
    recorded = Counter((record.method, record.path) for record in stage.guest.records)
    came = Counter((message.first[0].decode(), _path(message.first[1]).decode()) for _, message in arrived)
    assert not came - recorded, "something left that no record tells of"
    return [message for _, message in arrived]


def check_client(data: bytes, sent: bytes, *, ended: bool) -> list[Message]:
    """Check everything that a client got for what it sent; return the answers."""
    methods = [message.first[0] for message in strict.requests(sent).messages]
    found: list[Message] = []
    while data:
        read = strict.answers(data, methods, ended=ended)
        if read.problem and methods:  # a head that was refused as none has no method
            last = len([one for one in read.messages if not one.first[1].startswith(b"1")])
            read = strict.answers(data, methods[: last - 1], ended=ended)
        assert read.problem == "", (read.problem, data)
        found += read.messages
        if not read.messages or read.messages[-1].first[1] != b"101":
            break
        data = b""
    assert all(message.is_whole for message in found[:-1])
    assert not found or found[-1].is_whole or ended, found[-1]
    return found


def _read(peer: Peer) -> list[Message]:
    name, data = peer.name, bytes(peer.data)
    if data.startswith(b"\x16"):
        return []  # a ClientHello to the upstream in the clear: for https, and answered by nothing
    read = strict.requests(data, bare=True)
    assert read.problem == "", (read.problem, data)
    for message in read.messages:
        assert message.first[2] == b"HTTP/1.1"
        assert message.first[1].startswith(b"/")
        assert b"#" not in message.first[1]
        assert message.all(b"host") == [name.encode()]
        assert not {key for key, _ in message.fields} & (ONE_HOP - OURS)
        assert not {key for key, _ in message.trailers} & (ONE_HOP | OURS | {b"authorization"})
        credentials = message.all(b"authorization")
        if name == API:
            assert credentials == [f"Bearer {SECRET}".encode()]
    assert data.count(SECRET.encode()) == (len(read.messages) if name == API else 0)
    assert not read.rest or peer.has_ended, "half a request on a connection that is open"
    return read.messages


def _is_same(name: str, came: Message, left: Message) -> bool:
    """Whether left is what came, as it should leave for name."""
    if came.first[0] != left.first[0] or _origin(came.first[1]) != left.first[1]:
        return False
    if left.is_whole and (not came.is_whole or came.body != left.body):
        return False
    if not came.body.startswith(left.body):
        return False
    changed = ONE_HOP | OURS | (CHANGED_FOR_THE_API if name == API else set())
    listed = {word.strip().lower() for value in came.all(b"connection") for word in value.split(b",")}
    dropped = changed | (listed - {b"host", b"content-length", b"authorization", b"cookie"})
    expected = [pair for pair in came.fields if pair[0] not in dropped]
    return expected == [pair for pair in left.fields if pair[0] not in changed] and _names(came) <= {name}


def _names(came: Message) -> set[str]:
    """Return every host that a request names: one, or it should not have left."""
    target, found = came.first[1], came.all(b"host")
    if not target.startswith(b"/"):
        found = [*found, target.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]]
    names = {value.decode("latin-1").lower() for value in found if value}  # HTTP/1.0 may leave it empty
    return {name.removesuffix(":80").removesuffix(":443").removesuffix(".") for name in names}


def _origin(target: bytes) -> bytes:
    if b"://" not in target.partition(b"?")[0] or target.startswith(b"/"):
        return target
    rest = target.partition(b"://")[2]
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    path = rest[cut:]
    return path if path.startswith(b"/") else b"/" + path


def _path(target: bytes) -> bytes:
    return target.partition(b"?")[0][:2048]
