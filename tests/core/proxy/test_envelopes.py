from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.http import Headers
from moat.proxy.envelopes import MAX_PACKED_BYTES, ScrubbedMessages, has_envelopes, message_coding
from moat.proxy.http1 import Malformed
from moat.proxy.scrub import Scrub, mask

SECRET = b"s3cr3t-of-the-message"
HIDDEN = mask(len(SECRET))
SCRUB = Scrub([SECRET.decode()])
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def message(payload: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + len(payload).to_bytes(4) + payload


def messages_of(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at + 1 : at + 5])
        yield body[at], body[at + 5 : at + 5 + size]
        at += 5 + size


def reader(
    coding: str = "", counts: list[int] | None = None, scrub: Callable[[], Scrub] = lambda: SCRUB
) -> ScrubbedMessages:
    return ScrubbedMessages(coding, scrub, (counts if counts is not None else []).append)


def passed(coding: str, *pieces: bytes) -> bytes:
    messages = reader(coding)
    return b"".join(map(messages.feed, pieces)) + messages.finish()


def test_a_secret_in_a_message_is_replaced_and_the_message_keeps_its_length() -> None:
    assert passed("", message(b"<" + SECRET + b">")) == message(b"<" + HIDDEN + b">")
    assert passed("gzip", message(SECRET, 0x80)) == message(HIDDEN, 0x80)  # trailers of gRPC-Web


def test_a_message_that_ends_like_a_secret_begins_leaves_whole() -> None:
    messages = reader()
    sent = message(b"this is s3cr3t")

    assert messages.feed(sent) == sent
    assert messages.feed(message(b"-of")) == message(b"-of")


def test_a_long_message_is_not_held_but_for_what_may_begin_a_secret() -> None:
    messages = reader()
    sent = message(b"x" * 100_000 + SECRET)

    assert messages.feed(sent[:50_000]) == sent[:50_000]
    assert messages.feed(sent[50_000:-4]) == sent[50_000 : -len(SECRET)]
    assert messages.feed(sent[-4:]) == HIDDEN


@pytest.mark.parametrize("coding", PACKERS)
def test_a_secret_in_a_compressed_message_is_removed_and_the_message_leaves_plain(coding: str) -> None:
    counts: list[int] = []
    messages = reader(coding, counts)

    assert messages.feed(message(PACKERS[coding](b"<" + SECRET + b">"), 1)) == message(b"<" + HIDDEN + b">")
    assert counts == [1]


def test_a_compressed_message_without_one_leaves_as_it_came() -> None:
    sent = message(gzip.compress(b"fine"), 1) + message(b"", 1)[:0] + message(gzip.compress(b""), 1) + message(b"")

    assert passed("gzip", sent) == sent


@pytest.mark.parametrize(
    "body",
    [message(b"no gzip", 1), message(gzip.compress(b"x")[:-3], 1), message(b"x" * 9, 1)[:8],
     b"\1" + (MAX_PACKED_BYTES + 1).to_bytes(4), message(gzip.compress(b"\0" * (MAX_PACKED_BYTES + 300_000)), 1)],
    ids=["another coding", "breaks off inside", "breaks off", "long", "a bomb"],
)  # fmt: skip
def test_a_compressed_message_that_cannot_be_read_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        passed("gzip", body)


def test_where_no_coding_is_named_a_flag_means_nothing() -> None:
    assert passed("", message(SECRET, 1)) == message(HIDDEN, 1)


def test_half_a_message_passes_to_its_last_byte() -> None:
    for sent in (message(b"abc s3cr3t")[:-2], message(b"abc")[:3], b""):
        assert passed("gzip", sent) == sent


def test_what_the_run_spends_while_a_message_lasts_is_hidden_from_then_on() -> None:
    known = [Scrub(())]
    messages = reader(scrub=lambda: known[-1])
    sent = message(SECRET + b" " + SECRET)
    before = messages.feed(sent[: 6 + len(SECRET)])
    known.append(SCRUB)

    assert before == sent[: 6 + len(SECRET)]
    assert messages.feed(sent[6 + len(SECRET) :]) == HIDDEN


@given(
    parts=st.lists(
        st.tuples(st.sampled_from([SECRET, b"<" + SECRET * 2, SECRET[:9], b"", b"x" * 70]), st.booleans()), max_size=5
    ),
    size=st.integers(1, 40),
)
def test_however_a_body_is_cut_its_messages_are_the_same(parts: list[tuple[bytes, bool]], size: int) -> None:
    body = b"".join(message(gzip.compress(part), 1) if is_packed else message(part) for part, is_packed in parts)
    seen = passed("gzip", *(body[at : at + size] for at in range(0, len(body), size)))
    plain = [gzip.decompress(payload) if flags else payload for flags, payload in messages_of(seen)]

    assert plain == [part.replace(SECRET, HIDDEN) for part, _ in parts]
    assert seen == passed("gzip", body)


@pytest.mark.parametrize(
    ("kind", "name", "coding"),
    [
        ("application/grpc", "grpc-encoding", "gzip"),
        ("Application/gRPC+proto; charset=x", "Grpc-Encoding", "gzip"),
        ("application/grpc-web+json", "grpc-encoding", "gzip"),
        ("application/connect+proto", "Connect-Content-Encoding", "gzip"),
        ("application/grpc", "connect-content-encoding", ""),
        ("application/grpc", "x", ""),
    ],
)
def test_bodies_of_messages_are_known_by_their_type_and_name_their_coding(kind: str, name: str, coding: str) -> None:
    headers = Headers((("Content-Type", kind), (name, "GZIP")))

    assert has_envelopes(headers)
    assert message_coding(headers) == coding
    assert message_coding(Headers((("content-type", kind), (name, "identity")))) == ""


@pytest.mark.parametrize("kind", ["application/grpc-web-text", "application/json", "application/proto", ""])
def test_other_bodies_are_none_of_these(kind: str) -> None:
    headers = Headers((("content-type", kind), ("grpc-encoding", "gzip")))

    assert not has_envelopes(headers)
    assert message_coding(headers) == ""
