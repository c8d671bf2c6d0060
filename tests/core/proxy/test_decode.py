from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped] # brotli has no types
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from moat.api.http import Headers
from moat.proxy.decode import FREE_BYTES, MAX_PIECE_BYTES, Decoder, decoder_for, named_codings, quotable
from moat.proxy.http1 import Malformed


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "two members": ("x-gzip", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
    "two frames": ("zstd", lambda data: zstd.compress(data[:5]) + zstd.compress(data[5:])),
}
every_coding = pytest.mark.parametrize("name", PACKERS)


def known(coding: str) -> Decoder:
    decoder = decoder_for(coding)
    assert decoder is not None
    return decoder


def decoded(coding: str, pieces: list[bytes]) -> bytes:
    decoder, out = known(coding), b""
    for piece in pieces:
        out += decoder.feed(piece)
        while decoder.has_more:
            out += decoder.feed(b"")
    decoder.finish()
    return out


def drain(decoder: Decoder) -> None:
    while decoder.has_more:
        decoder.feed(b"")


@every_coding
@given(data=st.binary(max_size=300), size=st.integers(1, 40))
def test_however_it_is_cut_the_body_comes_out(name: str, data: bytes, size: int) -> None:
    coding, pack = PACKERS[name]
    packed = pack(data)

    assert decoded(coding, [packed[at : at + size] for at in range(0, len(packed), size)]) == data


def test_what_is_flushed_comes_out_before_the_end() -> None:
    packer, decoder = zlib.compressobj(wbits=31), known("gzip")

    assert decoder.feed(packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)) == b"data: 1\n\n"


@every_coding
def test_no_piece_is_much_larger_than_the_bound(name: str) -> None:
    coding, pack = PACKERS[name]
    decoder, sizes = known(coding), [0]
    sizes.append(len(decoder.feed(pack(b"x" * 3_000_000))))
    while decoder.has_more:
        sizes.append(len(decoder.feed(b"")))

    assert sum(sizes) == 3_000_000
    assert max(sizes) <= 2 * MAX_PIECE_BYTES


@every_coding
def test_a_body_that_breaks_off_is_malformed(name: str) -> None:
    coding, pack = PACKERS[name]

    with pytest.raises(Malformed):
        decoded(coding, [pack(b"hello, world")[:-2]])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_what_is_no_such_coding_is_malformed(coding: str) -> None:
    with pytest.raises(Malformed):
        decoded(coding, [b"\x78\x9c{this is plain text}" * 3])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_an_empty_body_needs_no_coding(coding: str) -> None:
    assert decoded(coding, []) == b""


def test_a_bomb_is_malformed() -> None:
    bomb, decoder = brotli.compress(b"\0" * (FREE_BYTES + 1_000_000)), known("br")
    decoder.feed(bomb)

    with pytest.raises(Malformed, match="beyond all sense"):
        drain(decoder)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_body_of_countless_parts_is_malformed(coding: str) -> None:
    part = gzip.compress(b"") if coding == "gzip" else zstd.compress(b"")

    with pytest.raises(Malformed, match="too many parts"):
        decoded(coding, [part * 5_000])


def test_a_coding_that_is_not_known_has_no_decoder() -> None:
    assert decoder_for("dcb") is None
    assert decoder_for("gzip, dcb") is None
    assert decoder_for("gzip, gzip, gzip, gzip") is None


@given(
    names=st.lists(st.sampled_from(sorted(PACKERS)), min_size=2, max_size=3),
    data=st.binary(max_size=300),
    size=st.integers(1, 40),
)
def test_stacked_codings_are_undone_from_the_last_to_the_first(names: list[str], data: bytes, size: int) -> None:
    packed = data
    for name in names:
        packed = PACKERS[name][1](packed)
    codings = ", ".join(PACKERS[name][0] for name in names)

    assert decoded(codings, [packed[at : at + size] for at in range(0, len(packed), size)]) == data


def test_a_stacked_body_that_is_large_comes_in_pieces() -> None:
    data = bytes(range(256)) * 20_000
    decoder = known("gzip, br")
    sizes = [len(decoder.feed(brotli.compress(gzip.compress(data))))]
    while decoder.has_more:
        sizes.append(len(decoder.feed(b"")))
    decoder.finish()

    assert sum(sizes) == len(data)
    assert max(sizes) <= MAX_PIECE_BYTES


def test_a_stacked_body_whose_inner_coding_breaks_off_is_malformed() -> None:
    decoder = known("gzip, br")
    decoder.feed(brotli.compress(gzip.compress(b"hello")[:-4]))
    drain(decoder)

    with pytest.raises(Malformed, match="breaks off"):
        decoder.finish()


def test_codings_of_nothing_are_malformed() -> None:
    nothing = b"\0\0\0\xff\xff" * 2_000_000  # stored blocks without a byte (RFC 1951 §3.2.4)
    decoder = known("deflate, br")
    decoder.feed(brotli.compress(nothing, quality=1))

    with pytest.raises(Malformed, match="of nothing"):
        drain(decoder)


def test_codings_are_named_in_the_order_they_were_applied() -> None:
    fields = Headers((("Content-Encoding", "GZIP, identity"), ("content-encoding", " br")))

    assert named_codings(fields) == "gzip, br"
    assert named_codings(Headers()) == ""


def test_only_names_that_are_registered_are_quoted_and_few_of_them() -> None:
    assert quotable("gzip, dcb") == "gzip, dcb"
    assert quotable("gzip, s3cr3t") == "gzip, one that is not registered"
    assert quotable(", ".join(["br"] * 9_000)) == "br, br, br, br"
