"""Bodies that become far more than they are: through the worker as it runs, whose memory the kernel has measured."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import brotli  # type: ignore[import-untyped] # brotli has no types
import pytest
from backports import zstd
from moat.api.rules import CaptureToken, Match, ReplaceToken
from support.scripted import Talk, answer, bearer, talking

HOST = "api.example.com"
URL = f"https://{HOST}/"
SIZE = 150_000_000
PEAK_KIB = 150_000  # an idle worker has half of it


def packed_zeros(coding: str, size: int = SIZE) -> bytes:
    """Return zeros in coding; made piece by piece, since it is the worker's memory that counts."""
    if coding == "br":
        return bytes(brotli.compress(bytes(size), quality=3))
    packer = zstd.ZstdCompressor() if coding == "zstd" else zlib.compressobj(wbits=31)
    piece = bytes(1_000_000)
    return b"".join([*(packer.compress(piece) for _ in range(size // len(piece))), packer.flush()])


async def peak_kib(talk: Talk) -> int:
    status = await asyncio.to_thread(Path(f"/proc/{talk.worker.process.pid}/status").read_text)
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "gzip, gzip", "zstd, gzip"])
async def test_a_bomb_in_an_answer_costs_a_bounded_room(coding: str, tmp_path: Path) -> None:
    first, _, second = coding.partition(", ")
    bomb = packed_zeros(first)
    bomb = gzip.compress(bomb) if second else bomb

    def bomb_or_fine(head: str, body: bytes) -> Iterator[bytes]:
        del body
        yield answer(b"fine") if "/fine" in head else answer(bomb, f"Content-Encoding: {coding}")

    async with talking(tmp_path, bomb_or_fine, bearer()) as talk:
        seen = await talk.curl(URL, "-o", "/dev/null", "-w", "%{size_download}")
        after = await talk.curl(f"{URL}fine")
        peak = await peak_kib(talk)

    assert 0 < int(seen.partition(b"curl:")[0]) <= SIZE
    assert (coding == "gzip") is (b"curl:" not in seen)  # a thousandfold and no more may be meant
    assert after == b"fine"
    assert peak < PEAK_KIB


async def test_a_bomb_that_nobody_reads_is_not_decoded(tmp_path: Path) -> None:
    bomb = packed_zeros("gzip")
    async with talking(tmp_path, lambda *_: [answer(bomb, "Content-Encoding: gzip")], bearer()) as talk:
        await talk.curl(URL, "--limit-rate", "1", "--max-time", "1", "-o", "/dev/null")

        assert await peak_kib(talk) < PEAK_KIB


AT_TOKENS = Match(HOST, ("POST",), ("/token",))
CAPTURE = CaptureToken(AT_TOKENS, "example", {}, {"access_token": "moat-placeholder"})
RENEW = ReplaceToken(AT_TOKENS, "moat-placeholder", "s3cr3t-refresh", ("body",), grant="example")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_what_is_held_for_its_tokens_has_a_bound_after_decoding(coding: str, tmp_path: Path) -> None:
    bomb = packed_zeros(coding)
    headers = (f"Content-Encoding: {coding}", "Content-Type: application/json")
    async with talking(tmp_path, lambda *_: [answer(bomb, *headers)], CAPTURE, RENEW) as talk:
        body = ("-H", "Content-Type: application/json", "-d", json.dumps({"refresh_token": "moat-placeholder"}))
        seen = await talk.curl(f"{URL}token", *body, "-w", "%{http_code}")

        assert seen.endswith(b"502")
        assert len(seen) < 10_000
        assert talk.worker.captured == []
        assert await peak_kib(talk) < PEAK_KIB


async def test_a_bomb_of_the_clients_is_not_searched_for_its_placeholder(tmp_path: Path) -> None:
    rule = ReplaceToken(Match(HOST), "moat-placeholder", "s3cr3t-value", ("body",), grant="example")
    async with talking(tmp_path, lambda *_: [answer(b"fine")], rule) as talk:
        said = ("-H", "Content-Type: application/json", "-H", "Content-Encoding: gzip", "-H", "Expect:")
        seen = await talk.curl(URL, *said, "--data-binary", "@-", "-w", "%{http_code}", stdin=packed_zeros("gzip"))

        assert seen.endswith(b"415")
        assert talk.place.heads == []
        assert await peak_kib(talk) < PEAK_KIB
