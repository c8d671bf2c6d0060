"""Real OpenSSL servers that are not what they should be: each is told apart, and none sees a byte of a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from moat.api.http import Authority
from moat.api.rules import Match, SetHeader
from moat.proxy.ca import make, private_pem
from moat.proxy.refusal import Refusal
from moat.proxy.server.secure import secure
from moat.proxy.server.stream import PlainStream
from moat.proxy.server.upstream import client_context
from support.installation import eventually
from support.tls_server import TlsServer, tls_server
from support.upstream import MadeCa, make_test_ca
from support.worker import RUN, a_run

from core.proxy.server.house_of import a_house
from core.proxy.server.pairs import CA, plain_pair, until

HOST = "api.example.com"
API = Authority("https", HOST, 443)
SECRET = "Bearer s3cr3t-of-the-upstream"


@pytest.fixture(scope="module")
def ca() -> MadeCa:
    return make_test_ca()


def self_signed() -> ssl.SSLContext:
    """A context whose certificate vouches for itself."""
    own = make(datetime.now(UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(own.certificate_pem.encode() + private_pem(own.key))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def old(ca: MadeCa, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A context that speaks nothing newer. OpenSSL 3 does so below its first security level only."""
    context = ca.server_context(HOST)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = version
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = version
    return context


def rc4_only(ca: MadeCa) -> ssl.SSLContext:
    """A context that shares no cipher with us."""
    context = ca.server_context(HOST)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-NULL-SHA:ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0")
    return context


async def asked(server: TlsServer, ca: MadeCa) -> tuple[bytes, str]:
    """Ask for HOST through a house, with a credential for it; return the answer and the recorded reason."""
    rule = SetHeader(Match(HOST), "Authorization", SECRET, "example")
    async with a_house(a_run(rules=(rule,)), roots=ca.pem, resolve={HOST: server.pin}) as guest:
        client = await guest.tls_through(guest.listen(RUN, "proxy"), HOST)
        client.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        while b"moat: " not in client.buffer and not client.buffer.endswith(b"\r\n\r\nok"):
            assert await client.more()
        await until(lambda: bool(guest.records))
        return bytes(client.buffer), guest.records[0].reason


@pytest.fixture(params=["expired", "self-signed", "another name", "unknown root", "TLS 1.1", "TLS 1.0", "no TLS"])
def bad(request: pytest.FixtureRequest, ca: MadeCa) -> Iterator[tuple[TlsServer, str, str]]:
    cases: dict[str, tuple[Callable[[], ssl.SSLContext | None], str, str]] = {
        "expired": (lambda: ca.server_context(HOST, expired=True), "certificate", "certificate has expired"),
        "self-signed": (self_signed, "certificate", "self-signed certificate"),
        "another name": (lambda: ca.server_context("evil.example"), "certificate", "Hostname mismatch"),
        "unknown root": (lambda: make_test_ca().server_context(HOST), "certificate", "unable to get local issuer"),
        "TLS 1.1": (lambda: old(ca, ssl.TLSVersion.TLSv1_1), "tls-version", "no TLS newer than 1.1"),
        "TLS 1.0": (lambda: old(ca, ssl.TLSVersion.TLSv1), "tls-version", "no TLS newer than 1.1"),
        "no TLS": (lambda: None, "tls", "wrong version number"),
    }
    make_context, kind, reason = cases[request.param]
    with tls_server(make_context()) as server:
        yield server, kind, reason


async def test_a_server_that_cannot_be_trusted_is_a_502_with_the_reason_and_sees_nothing(
    bad: tuple[TlsServer, str, str], ca: MadeCa
) -> None:
    server, kind, expected = bad
    answer, reason = await asked(server, ca)

    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert f"X-Moat-Error: {kind}\r\n".encode() in answer
    assert expected in reason
    assert b"s3cr3t" not in server.data + answer
    assert server.context is None or server.data == b""


async def test_the_same_server_with_a_good_certificate_is_asked_with_the_credential(ca: MadeCa) -> None:
    with tls_server(ca.server_context(HOST)) as server:
        answer, _ = await asked(server, ca)

    assert answer.endswith(b"ok")
    assert SECRET.encode() in server.data


async def test_a_server_without_a_cipher_in_common_is_a_502(ca: MadeCa) -> None:
    with tls_server(rc4_only(ca)) as server:
        answer, reason = await asked(server, ca)
        await until(lambda: server.handshakes[0].problem == "NO_SHARED_CIPHER")  # told after its alert was sent

    assert b"X-Moat-Error: tls\r\n" in answer
    assert "handshake failure" in reason


async def test_an_upstream_that_hangs_up_in_the_handshake_is_told_from_one_that_says_nothing() -> None:
    context = client_context(CA.certificate_pem)
    near, far = await plain_pair()
    far.close()
    with pytest.raises(Refusal, match="closed the connection in the TLS handshake") as closed:
        await secure(context, near, API)
    near.abort()

    near, far = await plain_pair()
    with pytest.raises(Refusal, match="did not finish the TLS handshake") as silent:
        await secure(context, near, API, limit_s=0.01)
    near.abort()
    far.abort()
    assert (closed.value.status, closed.value.kind) == (502, "closed")
    assert (silent.value.status, silent.value.kind) == (504, "timeout")


def test_a_server_without_our_version_of_http_is_told_apart(ca: MadeCa) -> None:
    with openssl_server(ca) as port:  # Python's own ssl goes on without a version
        refusal = asyncio.run(refused_by(port, ca))

    assert (refusal.status, refusal.kind) == (502, "http-version")


async def refused_by(port: int, ca: MadeCa) -> Refusal:
    loop = asyncio.get_running_loop()
    _, plain = await loop.create_connection(PlainStream, "127.0.0.1", port)
    with pytest.raises(Refusal) as refusal:
        await secure(client_context(ca.pem), plain, API)
    plain.abort()
    return refusal.value


@contextlib.contextmanager
def openssl_server(ca: MadeCa) -> Iterator[int]:
    """Run OpenSSL's own server, which speaks h2 and nothing else; yield its port."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(ca.leaf((HOST,), expired=False)))
        file.flush()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        argv = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", file.name, "-key", file.name,
                "-alpn", "h2", "-quiet"]  # fmt: skip
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            eventually("the server listens", lambda: _listens(port))
            yield port
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
