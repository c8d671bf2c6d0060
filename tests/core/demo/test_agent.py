from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from moat.demo import agent, upstream
from moat.runtimes.canary import Canary

KEY = "moat_demo_key_" + "0123456789abcdef" * 2


def test_a_key_in_a_file_or_a_variable_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leak").write_text(f"x {KEY} y")
    (tmp_path / "clean").write_text("nothing")
    monkeypatch.setattr(agent, "readable", lambda: iter(tmp_path.iterdir()))
    monkeypatch.setenv("LEAK", KEY)

    found = agent.search()

    assert found["found"] == ["LEAK", str(tmp_path / "leak")]
    assert found["files"] == 2


def test_the_search_does_not_find_itself() -> None:
    assert agent.KEY.search(Path(agent.__file__).read_bytes()) is None


def test_processes_and_files_are_searched_but_not_the_hosts_programs() -> None:
    seen = [str(next(iter(agent.readable())))]

    assert seen[0].startswith("/proc/")
    assert {"usr", "lib", "sys", "dev"} <= set(agent.SYSTEM)


def test_a_way_out_is_noticed_where_there_is_one() -> None:
    with Canary() as canary, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host, port = next(each for each in canary.addresses if each[0] == "127.0.0.1")

        assert agent.reaches(host, port)
        assert agent.reaches_abstract(canary.abstract)
        assert not agent.reaches(*closed.getsockname())
        assert not agent.reaches_abstract("no-such-socket")


def test_a_failure_is_an_answer_and_no_traceback() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        assert agent.politely(f"https://127.0.0.1:{port}/")[0] == 0
        assert isinstance(agent.stubbornly(f"127.0.0.1:{port}", "/"), str)


def test_a_refusal_keeps_its_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with upstream.running_api("localhost", "s3cr3t") as api:
        (tmp_path / "ca.pem").write_text(api.certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

        assert agent.politely(f"https://localhost:{api.port}/")[0] == 401
        assert agent.stubbornly(f"localhost:{api.port}", "/") == 401


def test_it_needs_nothing_but_a_bare_python() -> None:
    code = f"import runpy; runpy.run_path({agent.__file__!r})"

    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
