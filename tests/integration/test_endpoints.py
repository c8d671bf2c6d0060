"""A small plugin with an endpoint, from its hook to a real worker: what the run may ask, and what the service sees."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from core.daemon.making import SECRET, Fruit, Vault
from cryptography.hazmat.primitives import serialization
from moat.api import (
    Credential,
    CredentialProvider,
    Endpoint,
    EndpointProvider,
    Forward,
    Match,
    NetworkPolicy,
    ProxyPath,
    RunSpec,
    SetHeader,
    Upstream,
    hookimpl,
)
from moat.api.rules import Rule
from moat.api.runs import RunContext
from moat.daemon.grants import Grants
from moat.daemon.protocol import RegisterRequest
from moat.daemon.registration import context_of
from moat.log import Redactor
from moat.net.rules import parse_rule
from moat.plugins.discovery import Candidate
from moat.plugins.manager import Plugins
from support.proxied import run
from support.tls_server import TlsServer, tls_server
from support.upstream import MadeCa, make_test_ca
from support.worker import RUN, RunningWorker, a_run, running_worker

HOST = "cluster.corp.example"
CA, CLIENT = make_test_ca(), make_test_ca()


def pem_of(made: MadeCa) -> str:
    """Return certificate and key; a client may show any certificate that the server knows."""
    key = made.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.pem + key.decode()


class Cluster(EndpointProvider):
    """What a plugin for a cluster would say: its own authority, a client certificate, a token."""

    name, summary = "cluster", "A cluster under test"

    def endpoints(self, credential: Credential) -> Sequence[Endpoint]:
        upstream = Upstream(f"{HOST}:6443", ca=CA.pem, client_certificate=pem_of(CLIENT))
        rule = SetHeader(Match(upstream.address), "Authorization", f"Bearer {credential.secret}", self.name)
        return (Endpoint(ProxyPath("/_moat/cluster/"), Forward(upstream, (rule,)), self.name),)


class ClusterCredential(Fruit):
    def rules(self, credential: Credential) -> list[Rule]:
        return []


def a_plugin_with(endpoints: EndpointProvider) -> Plugins:
    credentials: Sequence[CredentialProvider] = (ClusterCredential("cluster"),)
    module = SimpleNamespace(
        moat_credential_providers=hookimpl(lambda: credentials), moat_endpoint_providers=hookimpl(lambda: [endpoints])
    )
    return Plugins([Candidate("cluster", "moat-provider-cluster", "1", lambda: module)])


def registered(policy: NetworkPolicy | None = None, *grants: str) -> RunContext:
    """Return the context that the daemon makes for a run with these grants."""
    spec = RunSpec(Path("/w"), ("true",), grants=grants)
    resolved = Grants(Vault("cluster"), a_plugin_with(Cluster()), Redactor()).resolve(spec)
    request = RegisterRequest(run_id=RUN, workspace="/w", command=("true",), needs_door=False)
    return context_of(request, policy or NetworkPolicy(), resolved, "s3cr3t-token")


@dataclass
class Place:
    worker: RunningWorker
    server: TlsServer
    origin: str

    async def curl(self, path: str, *arguments: str) -> bytes:
        """Ask as a tool inside does, which knows no proxy; return status and body."""
        argv = ["curl", "-sS", "--max-time", "30", "--noproxy", "*", "-w", " %{http_code}", *arguments]
        return (await run(*argv, f"{self.origin}{path}")).stdout


def wanting_a_client_certificate() -> ssl.SSLContext:
    context = CA.server_context(HOST)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=CLIENT.pem)
    return context


@asynccontextmanager
async def a_place(folder: Path, context: RunContext, *, pinned: bool = True) -> AsyncIterator[Place]:
    with tls_server(wanting_a_client_certificate()) as server:
        async with running_worker(
            folder, resolve={HOST: server.pin} if pinned else {"x.example": "127.0.0.1"}
        ) as worker:
            await worker.put(context)
            host, port = await worker.listen(RUN, "proxy")
            yield Place(worker, server, f"http://{host}:{port}")


async def test_a_request_below_the_path_reaches_the_service_with_token_and_certificate(tmp_path: Path) -> None:
    async with a_place(tmp_path, registered(None, "cluster")) as place:
        answers = [await place.curl("/_moat/cluster/api/v1/pods?limit=5", "-H", "Authorization: x") for _ in range(2)]
        (record, _) = await place.worker.records(2)

    assert answers == [b"ok 200", b"ok 200"]
    assert len(place.server.handshakes) == 1  # kept, as any upstream connection
    head = place.server.data.decode()
    assert head.startswith(f"GET /api/v1/pods?limit=5 HTTP/1.1\r\nHost: {HOST}:6443\r\n")
    assert f"Authorization: Bearer {SECRET}\r\n" in head
    assert "127.0.0.1" not in head
    assert (record.via, record.host, record.port, record.path) == ("endpoint", HOST, 6443, "/api/v1/pods")
    assert (record.status, record.grants) == (200, ("cluster",))


async def test_without_the_grant_there_is_nothing_at_the_path(tmp_path: Path) -> None:
    async with a_place(tmp_path, registered()) as place:
        answer = await place.curl("/_moat/cluster/")

    assert answer.endswith(b" 404")
    assert place.server.handshakes == []


async def test_a_strict_policy_lets_the_endpoint_out_and_its_rules_can_keep_it_in(tmp_path: Path) -> None:
    rules = (parse_rule(f"deny DELETE {HOST}:6443/**"),)
    async with a_place(tmp_path, registered(NetworkPolicy("strict", rules=rules), "cluster")) as place:
        read = await place.curl("/_moat/cluster/api")
        deleted = await place.curl("/_moat/cluster/api", "-X", "DELETE")

    assert (read[-3:], deleted[-3:]) == (b"200", b"403")
    assert b"DELETE" not in place.server.data


async def test_what_belongs_to_the_endpoint_is_not_spent_on_the_way_through_the_proxy(tmp_path: Path) -> None:
    async with a_place(tmp_path, registered(None, "cluster")) as place:
        await place.curl("/_moat/cluster/api")
        arguments = ["--cacert", str(place.worker.ca_file), "-x", place.origin, f"https://{HOST}:6443/"]
        through = await run("curl", "-sS", "--max-time", "30", "-w", " %{http_code}", *arguments)

    assert through.stdout.endswith(b" 502")  # its authority is trusted at the endpoint only
    assert place.server.data.count(SECRET.encode()) == 1


async def test_an_endpoint_is_judged_by_its_address_like_any_host(tmp_path: Path) -> None:
    loop_upstream = Upstream("127.0.0.1:6443")
    endpoint = Endpoint(ProxyPath("/_moat/inner/"), Forward(loop_upstream), "cluster")
    async with a_place(
        tmp_path, RunContext(RUN, "ab", NetworkPolicy(), (), True, "", (endpoint,)), pinned=False
    ) as place:
        answer = await place.curl("/_moat/inner/")

    assert answer.endswith(b" 403")
    assert b"loopback" in answer


@pytest.mark.parametrize(
    ("upstream", "status", "kind"),
    [
        (Upstream(f"{HOST}:6443", client_certificate=pem_of(CLIENT)), b"502", "certificate"),
        (Upstream(f"{HOST}:6443", ca="-----BEGIN nonsense"), b"502", "endpoint"),
        (Upstream(f"{HOST}:6443", ca=CA.pem, client_certificate="s3cr3t nonsense"), b"502", "endpoint"),
    ],
    ids=["unknown authority", "no authority", "no certificate"],
)
async def test_certificates_that_do_not_fit_are_told(
    upstream: Upstream, status: bytes, kind: str, tmp_path: Path
) -> None:
    endpoint = Endpoint(ProxyPath("/_moat/cluster/"), Forward(upstream), "cluster")
    async with a_place(tmp_path, RunContext(RUN, "ab", NetworkPolicy(), (), True, "", (endpoint,))) as place:
        answer = await place.curl("/_moat/cluster/", "-i")

    assert answer.endswith(status)
    assert f"X-Moat-Error: {kind}\r\n".encode() in answer
    assert b"s3cr3t" not in answer
    assert place.server.data == b""


async def test_an_endpoint_that_was_taken_away_is_gone_with_the_next_request(tmp_path: Path) -> None:
    async with a_place(tmp_path, registered(None, "cluster")) as place:
        before = await place.curl("/_moat/cluster/")
        await place.worker.put(a_run())
        after = await place.curl("/_moat/cluster/")
        await place.worker.put(a_run(is_open=False))

        assert (before[-3:], after[-3:]) == (b"200", b"404")
        assert (await place.curl("/_moat/cluster/"))[-3:] in (b"404", b"503")
