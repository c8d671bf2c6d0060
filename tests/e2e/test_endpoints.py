"""Endpoints from a plugin's hook to a client in a sealed run: every kind of place, every kind of service.

plugin ─▶ moat grant ─▶ daemon ─▶ worker ◀── names, ports, a path, a unix socket ── curl and Python inside
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.installation import Installation, end
from support.places import docker_answers, sandboxes_work
from support.plugged import plugged
from support.tls_server import TlsServer, tls_server
from support.upstream import make_test_ca

HOST = "real.corp.example"
SECRET = "cluster-s3cr3t"
PLUGIN = f'''
from moat.api import *
from moat.api import Stream  # by name: it is bytes here

REAL = Upstream("{HOST}:6443")

class Cluster(TokenProvider, EndpointProvider):
    name, summary, question = "cluster", "a cluster under test", "token"
    hosts = ()

    def endpoints(self, credential):
        rule = SetHeader(Match(REAL.address), "Authorization", "Bearer " + credential.secret, self.name)
        forward = Forward(REAL, (rule,))
        prelude = b"PRELUDE " + credential.secret.encode() + b"\\r\\n"
        return [
            Endpoint(ProxyPath("/_moat/cluster/"), forward, self.name),
            Endpoint(Tcp("api.internal"), forward, self.name),
            Endpoint(Tcp("plain.internal", 80, tls=False), forward, self.name),
            Endpoint(Tcp("port.internal", 8443), forward, self.name),
            Endpoint(UnixPath("/run/cluster/api.sock"), forward, self.name),
            Endpoint(Tcp("bytes.internal", 5432, tls=False), Stream(REAL, prelude), self.name),
            Endpoint(Tcp("keys.internal", 8080, tls=False), Respond("keys")),
            Endpoint(ProxyPath("/_moat/fixed/"), Respond("fixed", Reply(203, (), b"always the same"))),
        ]

    async def respond(self, question, credential):
        if question.target == "/broken":
            raise RuntimeError("no answer for " + credential.secret)
        body = f"{{question.name}} {{question.method}} {{question.target}} {{len(credential.secret)}}"
        return Reply(200, (("Content-Type", "text/plain"),), body.encode())

@hookimpl
def moat_credential_providers():
    return [Cluster()]

@hookimpl
def moat_endpoint_providers():
    return [Cluster()]
'''
STREAM = """
import errno, socket
for host in ("127.0.0.1", "0.0.0.0", "127.107.0.1"):  # nobody can listen where a client expects an endpoint
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind((host, 8443))
            sock.listen()
            print(f"listening at {host}:", "yes")
        except OSError as refused:
            print(f"listening at {host}:", errno.errorcode[refused.errno])
with socket.create_connection(("127.0.0.1", 5432), 10) as sock:  # the address of no name
    sock.settimeout(10)
    print("nameless:", sock.recv(1))
with socket.create_connection(("bytes.internal", 5432), 10) as sock:
    sock.sendall(b"anything at all\\r\\n\\r\\n")
    answer = b""
    while b"ok" not in answer:
        answer += sock.recv(100)
    print("bytes:", answer.split(b"\\r\\n")[0].decode())
"""
ASK = """
ask() { name=$1; shift; printf '%s: %s\\n' "$name" "$(curl -sS -m 15 -w ' %{http_code}' "$@" || echo " exit $?")"; }
ask path --noproxy '*' http://127.0.0.1:19080/_moat/cluster/v1
ask name https://api.internal/v1
ask name-by-address --noproxy '*' https://api.internal/v1
ask plain --noproxy '*' http://plain.internal/v1
ask port --noproxy '*' https://port.internal:8443/v1
ask socket --unix-socket /run/cluster/api.sock http://localhost/v1
ask keys --noproxy '*' 'http://keys.internal:8080/role?a=b' -d body
ask broken --noproxy '*' http://keys.internal:8080/broken -o /dev/null
ask fixed --noproxy '*' http://127.0.0.1:19080/_moat/fixed/
ask other --noproxy '*' http://127.0.0.1:19080/_moat/other/ -o /dev/null
ask elsewhere https://real.corp.example:6443/v1 -o /dev/null
python3 /workspace/stream.py
"""
EXPECTED = {
    "path": "ok 200",
    "name": "ok 200",
    "name-by-address": "ok 200",
    "plain": "ok 200",
    "port": "ok 200",
    "socket": "ok 200",
    "keys": f"keys POST /role?a=b {len(SECRET)} 200",
    "broken": " 502",
    "fixed": "always the same 203",
    "other": " 404",
    "listening at 127.0.0.1": "EADDRINUSE",
    "listening at 0.0.0.0": "EADDRINUSE",
    "listening at 127.107.0.1": "EADDRINUSE",
    "nameless": "b''",
    "bytes": "HTTP/1.1 200 OK",
}
RUNTIMES = [
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
]


@dataclass
class World:
    """An installation with the plugin and its grant, and the service."""

    made: Installation
    server: TlsServer


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    ca = make_test_ca()
    groups = {"moat": {"cluster": "moat_provider_cluster"}}
    with tls_server(ca.server_context(HOST)) as server, plugged("moat-provider-cluster", PLUGIN, groups) as made:
        roots = made.file("roots.pem", ca.pem)
        made.configure({"upstream": {"ca_bundle": str(roots), "resolve": {HOST: server.pin}}})
        made.grant("cluster", SECRET)
        yield World(made, server)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_place_leads_to_its_service_from_inside(world: World, runtime: str) -> None:
    if runtime == "docker" and not docker_answers():
        pytest.skip("no Docker engine answers here, or it has no debian:bookworm-slim")
    if runtime == "bubblewrap" and not sandboxes_work():
        pytest.skip("bubblewrap is not installed or may not make sandboxes here")
    workspace = world.made.file(f"work-{runtime}/stream.py", STREAM).parent
    begun = len(world.server.handshakes)
    flags = ["--runtime", runtime, "--grant", "cluster", "--policy", "strict"]
    done = world.made.run("run", str(workspace), *flags, "--", "sh", "-c", ASK)

    said = dict(line.split(": ", 1) for line in done.stdout.decode().splitlines())
    assert done.returncode == 0, done.stderr.decode() + world.made.logs()
    elsewhere = said.pop("elsewhere")
    assert said == EXPECTED, done.stderr.decode() + world.made.logs()
    assert "exit" in elsewhere  # strict policy: the service is nowhere but at its endpoints
    data = b"".join(each.data for each in world.server.handshakes[begun:])
    assert data.count(f"Authorization: Bearer {SECRET}\r\n".encode()) == 6
    assert f"PRELUDE {SECRET}\r\nanything at all\r\n\r\n".encode() in data
    assert b".internal" not in data
    assert SECRET not in done.stdout.decode() + done.stderr.decode() + world.made.logs()
    if runtime == "bubblewrap":
        trace = world.made.ok("trace", "--json")
        assert '"host": "bytes.internal"' not in trace
        assert '"method": "STREAM"' in trace
    assert not list(Path(world.made.home, ".moat", "doors").glob("*"))


@pytest.mark.bubblewrap
def test_ports_and_sockets_outlive_a_killed_daemon(world: World) -> None:
    if not sandboxes_work():
        pytest.skip("bubblewrap is not installed or may not make sandboxes here")
    ask = """
    got() {  # until the run is open again, it is refused
        for _ in $(seq 100); do
            said=$(curl -fsS -m 30 "$@" -w ' %{http_code}') && echo "$said" && return
            sleep 0.2
        done
    }
    while read word; do
        got --noproxy '*' https://port.internal:8443/v1
        got --unix-socket /run/cluster/api.sock http://localhost/v1
    done
    """
    workspace = world.made.file("work-outliving/.made", "").parent
    flags = (workspace, "--runtime", "bubblewrap", "--grant", "cluster")
    process = world.made.start("run", *flags, "--", "sh", "-c", ask, stdin=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        said = []
        for killed in (False, True):
            if killed:
                os.kill(world.made.daemon_pid(), signal.SIGKILL)
                world.made.ok("run", *flags, "--", "true")  # the next command starts another one
            process.stdin.write(b"go\n")
            process.stdin.flush()
            said += [process.stdout.readline(), process.stdout.readline()]
        process.stdin.close()
        process.stdin = None  # communicate would flush it
        assert process.wait(30) == 0
    finally:
        end(process)

    assert said == [b"ok 200\n"] * 4
