from __future__ import annotations

import os
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from moat.paths import Home, write_private
from moat.proxy.ca import make
from moat.runs import machine
from moat.runs.machine import (
    check_ca,
    check_clock,
    check_disk,
    check_kernel,
    check_machine,
    check_names,
    check_versions,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "moat")


def with_ca(home: Home) -> Home:
    made = make(NOW)
    write_private(home.ca / "ca.pem", made.certificate_pem.encode())
    write_private(home.ca / "ca.key", made.key_pem.encode())
    return home


def test_everything_has_a_line_on_this_machine(home: Home) -> None:
    checks = list(check_machine(home))

    assert [check.name for check in checks] == ["versions", "kernel", "name servers", "clock", "disk"]
    assert all(check.hint for check in checks if check.state != "ok")


def test_versions_are_told_and_another_system_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_versions().detail.startswith("moat ")
    monkeypatch.setattr("platform.system", lambda: "Darwin")

    assert check_versions().state == "failed"


def a_proc(folder: Path, **switches: str) -> Path:
    for name in ("self/ns/net", "sys/kernel/seccomp/actions_avail", *(f"sys/{name}" for name in switches)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(switches.get(name.removeprefix("sys/"), ""))
    return folder


@pytest.mark.parametrize("switch", ["user/max_user_namespaces", "kernel/unprivileged_userns_clone"])
def test_namespaces_that_are_switched_off_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setattr(machine, "has_landlock", lambda: True)
    assert check_kernel(a_proc(tmp_path / "on", **{switch: "1"})).state == "ok"

    check = check_kernel(a_proc(tmp_path / "off", **{switch: "0"}))

    assert check.state == "warning"
    assert "user namespaces" in check.detail


def test_a_kernel_without_landlock_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_landlock", lambda: False)

    assert "Landlock" in check_kernel(a_proc(tmp_path)).detail


def test_a_kernel_that_cannot_seal_is_a_failure(tmp_path: Path) -> None:
    check = check_kernel(tmp_path)

    assert (check.state, "no namespaces, no seccomp" in check.detail) == ("failed", True)


def test_name_servers_are_told_and_none_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    assert check_names(file).state == "warning"
    file.write_text("# x\nsearch lan\nnameserver 192.0.2.1\nnameserver\nnameserver 2001:db8::1\n")

    assert check_names(file).detail == "192.0.2.1, 2001:db8::1"


def test_a_clock_that_was_never_set_is_a_failure() -> None:
    assert check_clock(NOW).state == "ok"
    assert check_clock(datetime(1970, 1, 1, tzinfo=UTC)).state == "failed"


@pytest.mark.parametrize(
    ("free", "state"), [(machine.TIGHT_BYTES, "ok"), (machine.FULL_BYTES, "warning"), (10, "failed")]
)
def test_a_disk_has_room_or_not(home: Home, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(0, 0, free))

    assert check_disk(home).state == state


def test_a_place_that_cannot_be_written_is_a_failure(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    assert check_disk(home).state == "failed"


@pytest.mark.parametrize(("days", "state"), [(1, "ok"), (355, "warning"), (366, "failed"), (-2, "failed")])
def test_a_ca_is_valid_for_a_while(home: Home, days: int, state: str) -> None:
    assert check_ca(with_ca(home), NOW + timedelta(days=days)).state == state


def test_a_ca_whose_key_others_can_read_or_nobody_can_is_a_failure(home: Home) -> None:
    assert check_ca(home, NOW).state == "failed"
    (with_ca(home).ca / "ca.key").chmod(0o640)
    assert "others" in check_ca(home, NOW).detail
    (home.ca / "ca.pem").write_text("s3cr3t")

    assert "s3cr3t" not in check_ca(home, NOW).detail
