from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from moat.daemon.process import (
    Card,
    boot_id,
    exclusively,
    hold_lock,
    is_kept,
    is_running,
    living,
    read_card,
    remove_lock,
    send_signal,
    set_kept,
    start_time,
    write_card,
)
from moat.paths import Home, private_folder

HOLDER = """
import sys, threading
from pathlib import Path
from moat.daemon.process import hold_lock
from moat.paths import Home
print(hold_lock(Home(Path(sys.argv[1]))) is not None, flush=True)
threading.Event().wait()
"""


def a_holder(home: Home) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(home.root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    return holder


def end(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.communicate()


def test_the_lock_tells_who_lives_and_dies_with_its_holder(home: Home) -> None:
    assert living(home) is None
    holder = a_holder(home)
    try:
        assert living(home) == holder.pid
        assert hold_lock(home) is None
    finally:
        end(holder)

    assert living(home) is None


def test_asking_who_lives_never_disturbs_who_takes_the_lock(home: Home) -> None:
    private_folder(home.daemon)
    (home.daemon / "daemon.lock").touch()
    living(home)

    end(a_holder(home))


def test_a_signal_reaches_the_holder_only(home: Home) -> None:
    assert send_signal(home, signal.SIGTERM) is False
    holder = a_holder(home)
    try:
        assert send_signal(home, signal.SIGTERM) is True
        assert holder.wait(10) == -signal.SIGTERM
    finally:
        end(holder)


def test_a_recycled_process_id_is_not_taken_for_the_daemon(home: Home) -> None:
    write_card(home, Card(os.getpid(), started=1))

    assert living(home) is None
    assert send_signal(home, signal.SIGKILL) is False


def test_a_card_speaks_for_a_daemon_whose_lock_file_is_gone(home: Home) -> None:
    card = Card(os.getpid(), start_time(os.getpid()) or 0, "1", 19080, "2026-01-01T00:00:00+00:00")
    write_card(home, card)

    assert read_card(home) == card
    assert is_running(card)
    assert living(home) == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "started": 1}', '{"pid": 1}'])
def test_a_broken_card_is_set_aside_with_a_warning(home: Home, text: str, caplog: pytest.LogCaptureFixture) -> None:
    private_folder(home.daemon)
    (home.daemon / "daemon.json").write_text(text)

    assert read_card(home) is None

    assert (home.daemon / "daemon.json.broken").read_text() == text
    assert "set aside" in caplog.text


def test_a_zombie_and_a_missing_process_have_no_start_time() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

    assert start_time(child) is None
    os.waitpid(child, 0)
    assert start_time(child) is None
    assert start_time(os.getpid()) is not None


def test_a_file_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    file = private_folder(tmp_path / "locks") / "spawn.lock"
    with exclusively(file):
        refused = subprocess.run(["flock", "--nonblock", str(file), "true"], check=False)
    granted = subprocess.run(["flock", "--nonblock", str(file), "true"], check=False)

    assert (refused.returncode, granted.returncode) == (1, 0)


@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "folder under a card"])
def test_what_stands_in_the_lock_s_place_is_set_aside_with_a_warning(
    home: Home, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    lock = private_folder(home.daemon) / "daemon.lock"
    if kind.startswith("folder"):
        lock.mkdir()
    elif kind == "link":
        lock.symlink_to("/etc/passwd")
    else:
        os.mkfifo(lock)
    (home.daemon / "daemon.json").mkdir() if "card" in kind else None

    holder = a_holder(home)
    end(holder)
    with exclusively(lock):
        pass

    assert lock.is_file()
    assert not lock.is_symlink()
    assert [each.name for each in home.daemon.glob("daemon.lock.broken*")] == ["daemon.lock.broken"]
    del caplog


def test_a_lock_of_another_user_s_is_set_aside(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = private_folder(home.daemon) / "daemon.lock"
    lock.touch()
    owner = os.geteuid()
    real = os.fstat
    seen: list[int] = []

    def foreign(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        seen.append(descriptor)
        return os.stat_result([*status[:4], owner + 1, *status[5:]]) if len(seen) == 1 else status

    monkeypatch.setattr(os, "fstat", foreign)
    with exclusively(lock):
        pass

    assert (home.daemon / "daemon.lock.broken").exists()


def test_a_process_of_another_start_of_the_machine_is_not_the_daemon() -> None:
    started = start_time(os.getpid()) or 0

    assert is_running(Card(os.getpid(), started, boot_id=boot_id()))
    assert is_running(Card(os.getpid(), started))  # as older versions wrote it
    assert not is_running(Card(os.getpid(), started, boot_id="another"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_process_of_another_user_is_not_the_daemon() -> None:
    with subprocess.Popen(["sleep", "60"], user=65534) as other:
        assert not is_running(Card(other.pid, start_time(other.pid) or 0))
        other.kill()


def test_the_wish_that_the_daemon_stays_is_kept_until_it_is_taken_back(home: Home) -> None:
    assert not is_kept(home)
    set_kept(home, kept=True)
    assert is_kept(home)
    set_kept(home, kept=False)
    set_kept(home, kept=False)
    assert not is_kept(home)


def test_a_removed_lock_is_taken_again_by_its_daemon_and_by_nobody_else(home: Home) -> None:
    holder = a_holder(home)
    try:
        write_card(home, Card(holder.pid, start_time(holder.pid) or 0))
        (home.daemon / "daemon.lock").unlink()
        assert hold_lock(home) is None
        assert hold_lock(home, is_own=True) is None  # this process is not it
    finally:
        end(holder)
    descriptor = hold_lock(home)
    assert descriptor is not None
    (home.daemon / "daemon.lock").unlink()
    write_card(home, Card(os.getpid(), start_time(os.getpid()) or 0))
    again = hold_lock(home, is_own=True)
    assert again is not None
    os.close(again)
    os.close(descriptor)
    remove_lock(home)
    remove_lock(home)
    assert not (home.daemon / "daemon.lock").exists()
