from __future__ import annotations

import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from moat.api.errors import DaemonError, DaemonLeaving
from moat.daemon import lifecycle
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running, log_tail, patiently, restart, status, stop
from moat.daemon.process import is_kept, living, set_kept
from moat.paths import Home, private_folder

pytestmark = pytest.mark.timeout(60)  # real processes


def killed(home: Home) -> int:
    pid = living(home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # our child: a spawned daemon's parent is this process
    return pid


def test_a_daemon_is_started_once_and_found_again(daemon_home: Home) -> None:
    first = ensure_running(daemon_home).health()
    second = ensure_running(daemon_home).health()

    assert first.pid == second.pid == living(daemon_home)
    assert first.worker_pid > 0
    assert first.run_count == 0


def test_twenty_commands_at_once_make_one_daemon(daemon_home: Home) -> None:
    with ThreadPoolExecutor(20) as pool:
        pids = set(pool.map(lambda _: ensure_running(daemon_home).health().pid, range(20)))

    assert pids == {living(daemon_home)}


def test_a_killed_daemon_leaves_nothing_to_clean(daemon_home: Home) -> None:
    before = ensure_running(daemon_home).health()
    killed(daemon_home)
    assert status(daemon_home) is None

    after = ensure_running(daemon_home).health()

    assert after.pid != before.pid
    assert after.proxy_port == before.proxy_port


def test_a_daemon_gets_nothing_of_its_caller(daemon_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "tok-s3cr3t-github")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tok-s3cr3t-aws")
    monkeypatch.setenv("MOAT_FOO_TOKEN", "tok-s3cr3t-foo")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    health = ensure_running(daemon_home).health()
    os.close(writer)

    assert os.read(reader, 1) == b""  # the daemon does not hold it open
    os.close(reader)
    for pid in (health.pid, health.worker_pid):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"s3cr3t" not in environment
        assert b"MOAT_KEYRING_BACKEND=file" in environment
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        assert os.getsid(pid) == health.pid


def test_the_socket_is_private_in_a_private_folder(daemon_home: Home) -> None:
    ensure_running(daemon_home)

    assert (daemon_home.daemon / "daemon.sock").stat().st_mode & 0o777 == 0o600
    assert daemon_home.daemon.stat().st_mode & 0o777 == 0o700
    assert (daemon_home.daemon / "daemon.log").stat().st_mode & 0o777 == 0o600


def test_a_stopped_daemon_is_gone_and_takes_its_socket_along(daemon_home: Home) -> None:
    health = ensure_running(daemon_home).health()

    assert stop(daemon_home) is True
    assert stop(daemon_home) is False

    assert living(daemon_home) is None
    assert not (daemon_home.daemon / "daemon.sock").exists()
    assert not Path(f"/proc/{health.worker_pid}").exists()
    assert status(daemon_home) is None


def test_a_silent_daemon_is_told_apart_from_a_dead_one_and_not_replaced(
    daemon_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = ensure_running(daemon_home).health().pid
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(lifecycle, "START_TIMEOUT_S", 0.1)
    monkeypatch.setattr(lifecycle, "HEALTH_TIMEOUT_S", 0.1)

    for ask in (ensure_running, status):
        with pytest.raises(DaemonError, match=f"process {pid}. is alive but does not answer") as caught:
            ask(daemon_home)
        assert caught.value.hint == "run: moat proxy stop"
    assert living(daemon_home) == pid


def test_a_silent_daemon_can_be_stopped(daemon_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = ensure_running(daemon_home).health().pid
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(lifecycle, "KILL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(lifecycle, "SHUTDOWN_TIMEOUT_S", 0.2)

    assert stop(daemon_home) is True

    assert living(daemon_home) is None


def test_a_lost_lock_file_does_not_make_a_second_daemon(daemon_home: Home) -> None:
    pid = ensure_running(daemon_home).health().pid
    (daemon_home.daemon / "daemon.lock").unlink()
    (daemon_home.daemon / "daemon.sock").rename(daemon_home.daemon / "hidden")  # as if it did not answer

    assert living(daemon_home) == pid

    (daemon_home.daemon / "hidden").rename(daemon_home.daemon / "daemon.sock")
    assert stop(daemon_home) is True


def test_a_stale_socket_and_a_broken_card_do_not_matter(daemon_home: Home) -> None:
    private_folder(daemon_home.daemon)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(daemon_home.daemon / "daemon.sock"))
    (daemon_home.daemon / "daemon.json").write_text("{")

    ensure_running(daemon_home)

    assert (daemon_home.daemon / "daemon.json.broken").read_text() == "{"


def test_a_daemon_that_cannot_start_shows_the_end_of_its_log(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; print('line one\\nno disk'); sys.exit(3)"
    monkeypatch.setattr(lifecycle, "COMMAND", (sys.executable, "-c", script))

    with pytest.raises(DaemonError, match=r"(?s)exit code 3.*line one\nno disk") as caught:
        ensure_running(home)

    assert "daemon.log" in caught.value.hint


def test_a_daemon_that_does_not_become_ready_is_ended(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "COMMAND", (sys.executable, "-c", "import threading; threading.Event().wait()"))
    monkeypatch.setattr(lifecycle, "START_TIMEOUT_S", 0.3)

    with pytest.raises(DaemonError, match="did not become ready"):
        ensure_running(home)


def test_the_log_s_end_is_short_and_may_be_absent(home: Home) -> None:
    assert log_tail(home) == ""

    private_folder(home.daemon)
    (home.daemon / "daemon.log").write_text("".join(f"{number}\n" for number in range(10_000)))

    assert log_tail(home, 2) == "9998\n9999"


def test_a_restart_makes_a_new_daemon_at_the_same_port(daemon_home: Home) -> None:
    first = restart(daemon_home).health()
    second = restart(daemon_home).health()

    assert first.pid != second.pid == living(daemon_home)
    assert first.proxy_port == second.proxy_port


def test_a_daemon_that_does_not_leave_is_told_and_not_replaced(
    daemon_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = ensure_running(daemon_home).health().pid
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(lifecycle, "LEAVE_TIMEOUT_S", 0.1)

    with pytest.raises(DaemonError, match="does not leave"):
        restart(daemon_home)

    assert living(daemon_home) == pid


def test_what_stands_in_the_log_s_place_is_set_aside(daemon_home: Home) -> None:
    (private_folder(daemon_home.daemon) / "daemon.log").mkdir()

    ensure_running(daemon_home)

    assert (daemon_home.daemon / "daemon.log.broken").is_dir()


def test_what_a_leaving_daemon_refuses_is_asked_of_the_next_one(daemon_home: Home) -> None:
    client = ensure_running(daemon_home)
    asked: list[DaemonClient] = []

    def ask(each: DaemonClient) -> int:
        asked.append(each)
        if len(asked) < 3:
            raise DaemonLeaving("the daemon is finishing")
        return each.health().pid

    assert patiently(daemon_home, client, ask) == living(daemon_home)
    with pytest.raises(DaemonLeaving):
        patiently(daemon_home, client, _never)


def _never(client: DaemonClient) -> None:
    raise DaemonLeaving("the daemon is finishing")


def test_stopping_takes_the_wish_back_that_the_daemon_stays(daemon_home: Home) -> None:
    ensure_running(daemon_home)
    set_kept(daemon_home, kept=True)

    assert stop(daemon_home) is True

    assert not is_kept(daemon_home)
    assert not (daemon_home.daemon / "daemon.lock").exists()
