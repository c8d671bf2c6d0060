"""A client certificate is shown to the upstream of the endpoint that has it, and on no other way, not even to there."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from moat.api import Endpoint, Forward, NetworkPolicy, ProxyPath, Upstream
from moat.api.runs import RunContext
from support.proxied import run
from support.tls_server import TlsServer, tls_server
from support.upstream import make_test_ca
from support.worker import RUN, RunningWorker, running_worker

CLUSTER, OTHER = "cluster.example.com", "other.example.com"
CA, CLIENT = make_test_ca(), make_test_ca()


@dataclass
class Scene:
    """Two services that ask every client for a certificate and need none."""

    worker: RunningWorker
    cluster: TlsServer
    other: TlsServer
    origin: str

    async def at_endpoint(self, path: str, *arguments: str) -> bytes:
        return await self._curl(f"{self.origin}{path}", "--noproxy", "*", *arguments)

    async def through_proxy(self, url: str, *arguments: str) -> bytes:
        return await self._curl(url, "--cacert", str(self.worker.ca_file), "-x", self.origin, *arguments)

    async def _curl(self, *arguments: str) -> bytes:
        return (await run("curl", "-sS", "--max-time", "30", "-w", " %{http_code}", *arguments)).stdout


def asking(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = CA.server_context(CLUSTER, OTHER)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=CLIENT.pem)
    return context


def a_client() -> str:
    """Return a certificate and its key."""
    key = CLIENT.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return CLIENT.pem + key.decode()


@asynccontextmanager
async def a_scene(folder: Path, version: ssl.TLSVersion) -> AsyncIterator[Scene]:
    certified = Forward(Upstream(CLUSTER, ca=CA.pem, client_certificate=a_client()))
    plain = Forward(Upstream(CLUSTER, ca=CA.pem))
    stranger = Forward(Upstream(OTHER, ca=CA.pem))
    endpoints = tuple(
        Endpoint(ProxyPath(f"/_moat/{name}/"), how, name)
        for name, how in (("cluster", certified), ("plain", plain), ("stranger", stranger))
    )
    with ExitStack() as stack:
        cluster, other = (stack.enter_context(tls_server(asking(version))) for _ in range(2))
        pins = {CLUSTER: cluster.pin, OTHER: other.pin}
        async with running_worker(folder, CA.pem, pins) as worker:
            await worker.put(RunContext(RUN, "ab", NetworkPolicy(), (), True, "", endpoints))
            host, port = await worker.listen(RUN, "proxy")
            yield Scene(worker, cluster, other, f"http://{host}:{port}")


each_version = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@each_version
async def test_it_is_shown_at_its_endpoint_only(version: ssl.TLSVersion, tmp_path: Path) -> None:
    async with a_scene(tmp_path, version) as scene:
        assert await scene.at_endpoint("/_moat/cluster/") == b"ok 200"
        (shown,) = [each.has_certificate for each in scene.cluster.handshakes]
        assert await scene.at_endpoint("/_moat/plain/") == b"ok 200"
        assert await scene.at_endpoint("/_moat/stranger/") == b"ok 200"
        assert await scene.through_proxy(f"https://{CLUSTER}/") == b"ok 200"
        assert await scene.through_proxy(f"https://{OTHER}/") == b"ok 200"

    assert shown
    assert [each.has_certificate for each in scene.cluster.handshakes[1:]] == [False, False]
    assert [each.has_certificate for each in scene.other.handshakes] == [False, False]


@each_version
async def test_a_session_that_it_opened_is_resumed_by_nobody_else(version: ssl.TLSVersion, tmp_path: Path) -> None:
    async with a_scene(tmp_path, version) as scene:
        await scene.at_endpoint("/_moat/cluster/")
        scene.cluster.hang_up()
        for _ in range(2):
            await scene.through_proxy(f"https://{CLUSTER}/", "-H", "Connection: close")
            await scene.at_endpoint("/_moat/plain/", "-H", "Connection: close")
            scene.cluster.hang_up()

    first, *later = scene.cluster.handshakes
    assert first.has_certificate
    assert len(later) >= 2
    assert [each for each in later if each.has_certificate] == []


async def test_our_own_door_asks_no_client_for_one(tmp_path: Path) -> None:
    async with a_scene(tmp_path, ssl.TLSVersion.TLSv1_3) as scene:
        argv = ["openssl", "s_client", "-connect", f"{CLUSTER}:443", "-proxy", scene.origin.removeprefix("http://")]
        done = await run(*argv, "-servername", CLUSTER)

    assert b"No client certificate CA names sent" in done.stdout
