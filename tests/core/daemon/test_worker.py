from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from moat.api.errors import DaemonError
from moat.api.runs import ExchangeRecord
from moat.daemon import worker as module
from moat.daemon.process import start_time
from moat.daemon.worker import Worker
from moat.proxy.messages import Captured, Configure, Exchanges, encode
from moat.proxy.record import record_of

from core.daemon.making import RUN_ID, a_context, a_listener, a_worker, ask, until


class Notebook:
    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []
        self.names: list[tuple[str, str, str]] = []

    def exchanges(self, report: Exchanges) -> None:
        self.records += map(record_of, report.lines.splitlines())

    def named(self, run_id: str, name: str, address: str) -> None:
        self.names.append((run_id, name, address))


async def test_what_was_sent_before_a_barrier_is_in_force_after_it(tmp_path: Path) -> None:
    async with a_worker(tmp_path) as worker:
        with a_listener() as (sock, port):
            worker.configure(Configure("CERT", "KEY"))
            worker.put(a_context(), {"api.example.com": "127.107.0.1"})
            worker.listen("", "token", sock)
            await worker.barrier()

            state = await ask(port)

    assert state["configured"] == 1
    assert state["runs"][RUN_ID]["names"] == {"api.example.com": "127.107.0.1"}


async def test_the_same_configuration_is_sent_once(tmp_path: Path) -> None:
    async with a_worker(tmp_path) as worker:
        with a_listener() as (sock, port):
            worker.listen("", "token", sock)
            await worker.barrier()
            for _ in range(2):
                worker.configure(Configure("CERT", "KEY"))
            await worker.barrier()

            assert (await ask(port))["configured"] == 1


async def test_a_killed_worker_is_replaced_on_the_same_sockets_with_everything_in_force(tmp_path: Path) -> None:
    async with a_worker(tmp_path) as worker:
        with a_listener() as (sock, port):
            worker.configure(Configure("CERT", "KEY"))
            worker.put(a_context())
            worker.listen(RUN_ID, "proxy", sock)
            await worker.barrier()
            before = await ask(port)

            os.kill(worker.pid, signal.SIGKILL)
            after = await ask(port)  # waits in the backlog until the successor accepts

    assert after["pid"] != before["pid"]
    assert {**after, "pid": 0} == {**before, "pid": 0}


async def test_a_barrier_outlives_the_worker(tmp_path: Path) -> None:
    async with a_worker(tmp_path) as worker:
        await worker.barrier()
        os.kill(worker.pid, signal.SIGSTOP)
        dead = worker.pid
        os.kill(dead, signal.SIGKILL)

        await worker.barrier()

        assert worker.pid != dead


async def test_a_hanging_worker_is_an_error_and_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_worker(tmp_path) as worker:
        await worker.barrier()
        hanging = worker.pid
        os.kill(hanging, signal.SIGSTOP)
        monkeypatch.setattr(module, "BARRIER_TIMEOUT_S", 0.1)

        with pytest.raises(DaemonError, match="does not answer"):
            await worker.barrier()

        monkeypatch.setattr(module, "BARRIER_TIMEOUT_S", 10.0)
        await worker.barrier()
        assert worker.pid != hanging


async def test_a_dropped_run_is_forgotten_by_the_next_worker_too(tmp_path: Path) -> None:
    async with a_worker(tmp_path) as worker:
        with a_listener() as (token, port), a_listener() as (door, _):
            worker.listen("", "token", token)
            worker.put(a_context())
            worker.listen(RUN_ID, "proxy", door)
            worker.drop(RUN_ID)
            await worker.barrier()
            assert (await ask(port))["runs"] == {}

            os.kill(worker.pid, signal.SIGKILL)
            state = await ask(port)

            assert (state["runs"], state["listeners"]) == ({}, [["", "token"]])
            assert door.fileno() == -1


async def test_reports_reach_the_observer(tmp_path: Path) -> None:
    notebook = Notebook()
    async with a_worker(tmp_path, notebook) as worker:
        with a_listener() as (sock, port):
            worker.put(a_context())
            worker.listen("", "token", sock)
            await ask(port, f"record {RUN_ID}")
            await ask(port, f"named {RUN_ID} api.example.com 127.107.0.1")
            await worker.barrier()

            assert [record.outcome for record in notebook.records] == ["denied"]
            assert notebook.names == [(RUN_ID, "api.example.com", "127.107.0.1")]

            os.kill(worker.pid, signal.SIGKILL)
            assert (await ask(port))["runs"][RUN_ID]["names"] == {"api.example.com": "127.107.0.1"}


async def test_reports_that_do_not_fit_are_logged_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notebook = Notebook()
    async with a_worker(tmp_path, notebook) as worker:
        with a_listener() as (sock, port):
            worker.listen("", "token", sock)
            await ask(port, "garbage")
            await ask(port, f"named {RUN_ID} api.example.com 127.107.0.1")  # of no run
            await worker.barrier()

    assert (notebook.records, notebook.names) == ([], [])
    assert [each.message for each in caplog.records].count("a report of the worker does not fit") == 2


async def test_a_worker_ends_when_asked_and_only_then(tmp_path: Path) -> None:
    async with a_worker(tmp_path) as worker:
        await worker.barrier()
        pid = worker.pid
        assert pid

    assert worker.pid == 0
    assert start_time(pid) is None


async def test_who_waits_for_a_worker_that_ends_does_not_wait_for_long(tmp_path: Path) -> None:
    async with a_worker(tmp_path) as worker, asyncio.TaskGroup() as group:
        await worker.barrier()
        os.kill(worker.pid, signal.SIGSTOP)
        waiting = group.create_task(worker.barrier())
        await until(lambda: worker._pings)
        group.create_task(worker.stop())
        await until(lambda: worker._is_stopping)
        os.kill(worker.pid, signal.SIGKILL)

        await waiting
        await worker.barrier()  # nor does who comes later


async def test_a_worker_that_ignores_its_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_TIMEOUT_S", 0.1)
    async with a_worker(tmp_path) as worker:
        await worker.barrier()
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)

    assert start_time(pid) is None


async def test_a_worker_that_dies_of_its_start_is_tried_again(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    script = f"open({str(tries)!r}, 'a').write('x')"
    worker = Worker(Notebook(), tmp_path / "worker.log", {}, (sys.executable, "-c", script))
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.serve())
        await until(lambda: tries.exists() and len(tries.read_text()) >= 3)
        await worker.stop()


async def test_the_worker_gets_no_other_environment_and_no_other_descriptor(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = (
        "import os, json;"
        f"told = open({str(told)!r}, 'w');"
        "told.write(json.dumps([dict(os.environ), os.listdir('/proc/self/fd'), os.getcwd()]))"
    )
    worker = Worker(Notebook(), tmp_path / "worker.log", {"HOME": "/h"}, (sys.executable, "-c", script))
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.serve())
        await until(lambda: told.exists() and told.read_text())
        await worker.stop()

    env, descriptors, folder = json.loads(told.read_text())
    assert {name for name in env if name != "LC_CTYPE"} == {"HOME"}  # Python adds LC_CTYPE (PEP 538)
    assert len(descriptors) == 7  # standard three, the channel, the audit's, the open file, the listing itself
    assert folder == "/"


async def test_each_worker_has_a_socket_of_its_own_to_the_audit(tmp_path: Path) -> None:
    script = (
        "import socket, sys, time; socket.socket(fileno=int(sys.argv[4])).sendall(sys.argv[3].encode()); time.sleep(60)"
    )
    desks: list[socket.socket] = []
    worker = Worker(Notebook(), tmp_path / "worker.log", {}, (sys.executable, "-c", script))
    worker.desk = desks.append
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.serve())
        await until(lambda: bool(desks))
        assert await asyncio.to_thread(desks[0].recv, 99) == b"--audit"
        os.kill(worker.pid, signal.SIGKILL)
        assert await asyncio.to_thread(desks[0].recv, 99) == b""  # nobody else has the other end
        await until(lambda: len(desks) == 2)
        worker._kill()
        await worker.stop()
    for desk in desks:
        desk.close()


async def test_what_the_worker_asks_is_handed_to_who_takes_it(tmp_path: Path) -> None:
    taken: list[object] = []
    async with a_worker(tmp_path) as worker:
        worker.takers["captured"] = taken.append
        worker._take(encode(Captured(7, RUN_ID, "apple", {"access_token": "s3cr3t"})))
        worker._take({**encode(Captured(7, RUN_ID, "apple", {})), "id": "seven"})
        worker._take({"type": "unheard of"})

    assert taken == [Captured(7, RUN_ID, "apple", {"access_token": "s3cr3t"})]


async def test_a_worker_whose_log_cannot_be_written_runs_without_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = tmp_path / "told"
    script = f"import json, sys; open({str(told)!r}, 'w').write(json.dumps(sys.argv[1:]))"
    (tmp_path / "worker.log").mkdir()
    worker = Worker(Notebook(), tmp_path / "worker.log", {}, (sys.executable, "-c", script))
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.serve())
        await until(lambda: told.exists() and told.read_text())
        await worker.stop()

    assert "--log" not in json.loads(told.read_text())
    assert "the worker has no log" in caplog.text
