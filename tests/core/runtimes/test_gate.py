from __future__ import annotations

import ast
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from moat.runtimes import gate
from moat.runtimes.gatelink import GATE_FLAGS, GATE_SOURCE

PROGRAM = """
import importlib.util, json, socket, sys
spec = importlib.util.spec_from_file_location("gate", sys.argv[1])
gate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gate)
gate.enter_namespace()
gate.add_second_address()
"""

AT_WORK = f"""#!{sys.executable}
import os, sys, time
info = int(sys.argv[2])  # --info-fd N, as bwrap is given it
if not (child := os.fork()):
    os.close(info)
    time.sleep(600)
os.write(1, b"%d\\n" % child)
for piece in (b'{{"child-pid": %d,' % child, b' "more": 1}}'):
    os.write(info, piece)
    time.sleep(0.1)
os.close(info)
time.sleep(600)
"""  # as bwrap is while it makes the sandbox: its child is there, has no child, and would outlive it


def in_a_namespace(program: str) -> str:
    """Run a program with `gate` in scope, in a namespace that the gate has made; return what it prints."""
    done = subprocess.run(
        [sys.executable, *GATE_FLAGS, "-c", PROGRAM + program, str(GATE_SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_gate_imports_the_standard_library_only() -> None:
    tree = ast.parse(GATE_SOURCE.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert names <= sys.stdlib_module_names


def test_gate_runs_alone_and_tells_an_unreachable_door() -> None:
    config = {"run_id": "run_1", "nonce": "n", "door": "/no/such/folder", "place": "container", "argv": None}

    done = subprocess.run(
        [sys.executable, *GATE_FLAGS, str(GATE_SOURCE)],
        input=json.dumps(config) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )

    event = json.loads(done.stdout)
    assert event["event"] == "unreached"
    assert "/no/such/folder" in event["problem"]


def test_namespace_has_only_loopback_with_both_addresses() -> None:
    program = """
print(gate.interfaces(), gate.routes())
for host in ("127.0.0.1", gate.SECOND_ADDRESS):
    socket.create_server((host, 0)).close()
print(socket.getaddrinfo("127.0.0.1", 80, flags=socket.AI_ADDRCONFIG)[0][4])
"""
    assert in_a_namespace(program).splitlines() == ["[['lo', True]] []", "('127.0.0.1', 80)"]


def test_namespace_is_another_one() -> None:
    assert int(in_a_namespace("print(gate.netns_cookie())")) != gate.netns_cookie()


def test_door_has_no_reuse_options_and_keeps_its_sockets_to_itself() -> None:
    program = """
for _, *rest in gate.FULL_DOOR:
    sock = gate.open_socket(*rest)
    print(sock.getsockname(), [sock.getsockopt(1, option) for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT)],
          sock.get_inheritable())
"""
    lines = in_a_namespace(program).splitlines()

    assert lines == [f"({host!r}, {port}) [0, 0] False" for _, _, host, port in gate.FULL_DOOR]


def test_nobody_can_bind_beside_the_door() -> None:
    program = """
sockets = [gate.open_socket(*rest) for _, *rest in gate.FULL_DOOR]
for _, kind, host, port in gate.FULL_DOOR:
    for address in {host, "0.0.0.0", "127.0.0.1"}:
        thief = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            thief.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            thief.bind((address, port))
            thief.listen() if kind == "tcp" else None
            print("stolen", address, port)
        except OSError:
            pass
"""
    assert in_a_namespace(program) == ""


def test_undumpable_process_is_closed_to_its_own_user() -> None:
    program = """
import os
gate.become_undumpable()
print(os.stat("/proc/self/environ").st_uid, gate.ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    assert in_a_namespace(program).split()[1] == "0"


def test_canary_is_reached_where_it_can_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert gate.can_connect(socket.AF_INET, listener.getsockname())
        closed = listener.getsockname()
    assert not gate.can_connect(socket.AF_INET, closed)


@pytest.mark.parametrize(
    ("answer", "read"),
    [(b"HTTP/1.1 200 OK\r\n\r\nyes", "yes"), (b"HTTP/1.1 403 No\r\n\r\nyes", ""), (b"garbage", ""), (b"", "")],
)
def test_only_a_200_of_the_proxy_counts(monkeypatch: pytest.MonkeyPatch, answer: bytes, read: str) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: ours)

    assert gate.door_answer() == read
    theirs.close()


def test_missing_file_of_proc_is_empty(tmp_path: Path) -> None:
    assert gate.contents(str(tmp_path / "absent")) == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sandbox_that_is_not_made_yet_ends_as_a_whole(tmp_path: Path, number: int) -> None:
    program = tmp_path / "bwrap"
    program.write_text(AT_WORK)
    program.chmod(0o755)
    reading, writing = os.pipe()
    stdio = [os.open(os.devnull, os.O_RDONLY), writing, os.dup(2)]
    config = {"place": "outside", "terminal": False, "argv": [str(program)], "pass_fds": [], "env": {}, "stdio": stdio}

    command = gate.Command(config)
    with os.fdopen(reading) as told:
        child = os.pidfd_open(int(told.readline()))
    command.signal(number)

    assert command.code() == 128 + signal.SIGKILL
    assert select.select([child], [], [], 30)[0]
    os.close(child)
    os.close(command.ended)
