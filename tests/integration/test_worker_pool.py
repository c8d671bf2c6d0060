"""What a real worker keeps between requests, as a real OpenSSL server counts it: connections, resumed handshakes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moat.proxy.messages import Configure, Drop
from support.connect_proxy import connect_proxy
from support.proxied import HOST, RULE, run
from support.tls_server import TlsServer, tls_server
from support.upstream import MadeCa, make_test_ca
from support.worker import OTHER_RUN, RUN, RunningWorker, a_run, running_worker


class Cold:
    """A worker before a server, and clients that each come with a process and a tunnel of their own."""

    def __init__(self, worker: RunningWorker, server: TlsServer) -> None:
        self.worker, self.server = worker, server
        self.doors: dict[str, str] = {}

    async def curl(self, run_id: str = RUN, *arguments: str, host: str = HOST) -> bytes:
        """Start a curl that asks once and ends; return what it printed."""
        if run_id not in self.doors:
            await self.worker.put(a_run(run_id, (RULE,), token=f"s3cr3t-{run_id}"))
            address, port = await self.worker.listen(run_id, "proxy")
            self.doors[run_id] = f"http://{address}:{port}"
        argv = ["curl", "-sS", "--max-time", "30", "--cacert", str(self.worker.ca_file), "-x", self.doors[run_id]]
        return (await run(*argv, *arguments, f"https://{host}/")).stdout

    async def gone(self) -> None:
        """Have the server hang up, and wait until it has."""
        before = list(self.server.open)
        self.server.hang_up()
        async with asyncio.timeout(30):
            while any(sock.fileno() >= 0 for sock in before):  # noqa: ASYNC110 - threads of the server, without an event
                await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def ca() -> MadeCa:
    return make_test_ca()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def context(request: pytest.FixtureRequest, ca: MadeCa) -> ssl.SSLContext:
    made = ca.server_context("*.example.com")
    made.maximum_version = request.param
    return made


@pytest.fixture
async def cold(tmp_path: Path, ca: MadeCa, context: ssl.SSLContext) -> AsyncIterator[Cold]:
    with tls_server(context) as server:
        pins = {HOST: server.pin, "other.example.com": server.pin}
        async with running_worker(tmp_path, ca.pem, pins) as worker:
            yield Cold(worker, server)


async def test_a_second_cold_client_costs_no_upstream_handshake(cold: Cold) -> None:
    assert [await cold.curl(), await cold.curl(), await cold.curl()] == [b"ok"] * 3

    assert len(cold.server.handshakes) == 1
    assert cold.server.data.count(RULE.value.encode()) == 3


async def test_another_run_and_another_host_get_connections_of_their_own_and_resume_for_the_same_host(
    cold: Cold,
) -> None:
    assert [await cold.curl(), await cold.curl(OTHER_RUN), await cold.curl(host="other.example.com")] == [b"ok"] * 3

    assert [each.was_resumed for each in cold.server.handshakes] == [False, True, False]


async def test_a_connection_that_the_server_closed_is_replaced_by_a_resumed_one_also_for_a_post(cold: Cold) -> None:
    first = await cold.curl()
    await cold.gone()
    second = await cold.curl(RUN, "-d", "")

    assert [first, second] == [b"ok", b"ok"]
    assert [each.was_resumed for each in cold.server.handshakes] == [False, True]
    assert all(RULE.value.encode() in each.data for each in cold.server.handshakes)


async def test_what_was_kept_for_a_run_is_closed_with_it(cold: Cold) -> None:
    await cold.curl()
    cold.worker.send(Drop(RUN))

    async with asyncio.timeout(30):
        while any(sock.fileno() >= 0 for sock in cold.server.open):  # noqa: ASYNC110 - threads, without an event
            await asyncio.sleep(0.001)


async def test_through_a_companys_proxy_connections_are_kept_too_and_its_password_is_not_logged(
    tmp_path: Path, ca: MadeCa
) -> None:
    with tls_server(ca.server_context(HOST)) as server, connect_proxy({HOST: server.port}) as proxy:
        async with running_worker(tmp_path, ca.pem, proxy=proxy.url) as worker:
            cold = Cold(worker, server)
            answers = [await cold.curl(), await cold.curl()]
            worker.send(Configure(worker.ca.certificate_pem, worker.ca.key_pem, proxy=f"{proxy.url}/no-such-path"))
            await worker.settle()

            assert "was not obeyed" in worker.log.read_text()

    assert answers == [b"ok", b"ok"]
    assert (len(proxy.heads), len(server.handshakes)) == (1, 1)
