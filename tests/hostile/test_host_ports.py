"""Ports of this machine that a run may reach, and every other way to try for the rest of it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from support.installation import Installation, installation
from support.places import docker_answers, sandboxes_work

RUNTIMES = [
    pytest.param("bubblewrap", marks=[
        pytest.mark.bubblewrap, pytest.mark.skipif(not sandboxes_work(), reason="bubblewrap makes no sandboxes here"),
    ]),
    pytest.param("docker", marks=[
        pytest.mark.docker, pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
    ]),
]  # fmt: skip
INSIDE = """
import json, socket, sys

def said(sock, text="hello"):
    with sock:
        sock.settimeout(15)
        sock.sendall(text.encode())
        sock.shutdown(socket.SHUT_WR)
        came = b""
        while piece := sock.recv(100):
            came += piece
        return came.decode(errors="replace")

def tried(attempt):
    try:
        return attempt()
    except OSError as failure:
        return type(failure).__name__

def through(target, text="hello"):
    sock = socket.create_connection(("127.0.0.1", 19080), 15)
    sock.sendall(f"CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n".encode())
    sock.settimeout(15)
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        piece = sock.recv(1)
        if not piece:
            return "cut"
        head += piece
    return said(sock, text) if b" 200 " in head else head.split()[1].decode()

def straight(host, port):
    return said(socket.create_connection((host, port), 15))

opened, dead, closed, own = map(int, sys.argv[1:5])
name = "host.moat.internal"
good = [tried(lambda: straight(name, opened)), tried(lambda: straight(f"db.{name}", opened)),
        tried(lambda: through(f"{name}:{opened}")), tried(lambda: through(f"DB.{name.upper()}:{opened}"))]
gone = [tried(lambda: straight(name, dead)), tried(lambda: through(f"{name}:{dead}"))]
bad = {}
for host in (name, f"db.{name}", f"{name}.", f"x.{name}", "localhost", "127.0.0.1", "[::1]", "127.1", "0.0.0.0",
             "0x7f000001", "[::ffff:127.0.0.1]", own_name := socket.gethostname(), *sys.argv[5:]):
    for port in (closed, own):
        bad[f"{host}:{port} through"] = tried(lambda: through(f"{host}:{port}"))
        bad[f"{host}:{port} straight"] = tried(lambda: straight(host.strip("[]"), port))
bad["x, opened"] = tried(lambda: through(f"x.{name}:{opened}"))
bad["x, opened, straight"] = tried(lambda: straight(f"x.{name}", opened))
bad["an address that no name has"] = tried(lambda: straight("127.0.0.1", opened))
bad["loopback"] = tried(lambda: through(f"127.0.0.1:{opened}"))
print(json.dumps([good, gone, bad]))
"""


@dataclass
class Echo:
    """A server of this machine's loopback that says who came with what; and a port where none is."""

    port: int
    heard: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def echo() -> Iterator[Echo]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Echo(listener.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.settimeout(30)
                    came = b""
                    while piece := sock.recv(100):
                        came += piece
                    made.heard.append(came)
                    sock.sendall(b"echo of " + came)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.ok("proxy", "start")
        yield made


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_run_reaches_the_ports_that_were_opened_and_nothing_else_of_this_machine(
    moat: Installation, runtime: str
) -> None:
    workspace = moat.file(f"work-{runtime}/inside.py", INSIDE).parent
    proxy = json.loads(moat.ok("proxy", "status", "--json"))["proxy_port"]
    addresses = [each for each in socket.gethostbyname_ex(socket.gethostname())[2] if not each.startswith("127.")]
    with echo() as opened, echo() as closed, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can
        gone = dead.getsockname()[1]
        flags = ["--runtime", runtime, "--policy", "strict", "--allow-host", f"localhost:{closed.port}"]
        flags += ["--host-port", f"db={opened.port}", "--host-port", str(gone), "--name", f"tries-{runtime}"]
        numbers = [str(each) for each in (opened.port, gone, closed.port, proxy)]
        script = ["python3", "/workspace/inside.py", *numbers, *addresses]
        said = moat.ok("run", workspace, *flags, "--", *script)

        good, refused, bad = json.loads(said)
        assert good == ["echo of hello"] * 4
        assert opened.heard == [b"hello"] * 4
        assert closed.heard == []
    assert [each for each in refused if each not in ("", "cut", "OSError", "ConnectionResetError", "502")] == []
    assert {way: came for way, came in bad.items() if "echo" in came} == {}
    lines = json.loads(moat.ok("trace", f"tries-{runtime}", "--network", "--json"))
    told = {(line["method"], line["host"], line["port"], line["outcome"], line["reason"]) for line in lines}
    assert ("STREAM", "db.host.moat.internal", opened.port, "forwarded", "") in told
    unreached = f"port {gone} of this machine cannot be reached: connection refused"
    assert ("STREAM", "host.moat.internal", gone, "failed", unreached) in told
    closed_one = f"port {closed.port} of this machine is not open to this run"
    assert ("CONNECT", "host.moat.internal", closed.port, "denied", closed_one) in told
    asked = "no port of this machine is open to this run as x.host.moat.internal"
    assert ("DNS", "x.host.moat.internal", 443, "denied", asked) in told


def test_the_proxys_own_port_is_no_port_to_open(moat: Installation) -> None:
    workspace = moat.file("work-own/inside.py", INSIDE).parent
    proxy = json.loads(moat.ok("proxy", "status", "--json"))["proxy_port"]
    ask = f"curl -s -o /dev/null -m 20 -w '%{{http_code}}' http://host.moat.internal:{proxy}/"
    if proxy == 19080:
        done = moat.run("run", workspace, "--host-port", str(proxy), "--", "true")
        assert b"port 19080 is the run's own" in done.stderr
    else:
        assert moat.ok("run", workspace, "--host-port", str(proxy), "--", "sh", "-c", ask).startswith("50")


def test_a_runtime_that_keeps_nothing_from_a_run_opens_nothing(moat: Installation) -> None:
    workspace = moat.file("work-process/inside.py", INSIDE).parent

    done = moat.run("run", workspace, "--runtime", "process", "--host-port", "5432", "--", "true")

    assert done.returncode != 0
    assert b"the runtime process keeps no port of this machine from a run" in done.stderr
