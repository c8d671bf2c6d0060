from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from moat.audit.chain import INSTALLATION
from moat.audit.log import AuditLog
from moat.audit.verify import Pin
from moat.daemon.audit_key import AuditKeys, Secret
from moat.paths import Home, private_folder
from moat.runs import audit_check
from moat.runs.audit_check import check_audit
from moat.runs.checks import Check
from moat.store.keyring import KeyringFailed, NoKeyring

from core.audit.making import HAPPENED, RUN, Made, seal


class Ring:
    """A keyring in memory, which may fail."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.failure: KeyringFailed | None = None

    def get(self, account: str) -> str | None:
        self._fail()
        return self.kept.get(account)

    def put(self, account: str, value: str) -> None:
        self._fail()
        self.kept[account] = value

    def remove(self, account: str) -> bool:
        self._fail()
        return self.kept.pop(account, None) is not None

    def _fail(self) -> None:
        if self.failure:
            raise self.failure


class Desk:
    """An installation whose audit is whole, and signed with the key in its keyring."""

    def __init__(self, home: Home, ring: Ring, env: dict[str, str]) -> None:
        private_folder(home.root)
        self.home = home
        self.ring = ring
        self.keys = AuditKeys(home, env, ring)
        secret = self.keys.obtain()
        with closing(AuditLog(home.audit)) as log:
            log.append(HAPPENED)
            anchor = seal(log, 1, secret.seed)
        self.keys.remember(Secret(secret.seed, anchor))

    def check(self) -> Check:
        return check_audit(self.home, self.keys)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(Home(tmp_path / "home"), Ring(), {})


def test_a_log_that_is_whole_and_signed_is_fine(desk: Desk) -> None:
    check = desk.check()

    assert (check.name, check.state) == ("audit", "ok")
    assert "whole: 13 entries in 3 chains" in check.detail
    assert "in the keyring" in check.detail


def test_nothing_yet_is_fine(tmp_path: Path) -> None:
    home = Home(private_folder(tmp_path / "home"))

    assert check_audit(home, AuditKeys(home, {}, Ring())).detail == "nothing was recorded yet"


def test_a_changed_entry_is_named_with_what_to_type(desk: Desk) -> None:
    with Made(desk.home.audit, Pin()).changed() as db:
        db.execute("UPDATE entries SET facts = '{}' WHERE chain = ? AND seq = 2", (RUN,))

    check = desk.check()

    assert (check.state, check.hint) == ("failed", "run: moat audit verify")
    assert f"{RUN}, entry 2" in check.detail


def test_a_log_that_was_taken_away_is_a_failure(desk: Desk) -> None:
    desk.home.audit.unlink()

    assert desk.check().state == "failed"
    assert INSTALLATION in desk.check().detail


def test_what_is_no_log_is_a_failure(desk: Desk) -> None:
    desk.home.audit.write_bytes(b"no database" * 1000)

    assert desk.check().state == "failed"


def test_a_locked_keyring_is_a_warning(desk: Desk) -> None:
    desk.ring.failure = KeyringFailed("it is locked")

    check = desk.check()

    assert (check.state, check.hint) == ("warning", "unlock the keyring")


def test_a_key_that_is_gone_is_a_failure(desk: Desk) -> None:
    desk.ring.kept.clear()

    check = desk.check()

    assert check.state == "failed"
    assert "its key cannot be used" in check.detail


def test_a_log_that_nobody_signed_is_a_warning(tmp_path: Path) -> None:
    home = Home(private_folder(tmp_path / "home"))
    with closing(AuditLog(home.audit)) as log:
        log.append(HAPPENED)

    check = check_audit(home, AuditKeys(home, {}, Ring()))

    assert check.state == "warning"
    assert "signed by nobody yet" in check.detail


def test_a_daemon_that_has_just_started_is_given_time_to_get_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(Home(tmp_path / "home"), Ring(), {})
    kept = (desk.home.root / "audit.json").read_bytes(), dict(desk.ring.kept)
    (desk.home.root / "audit.json").unlink()
    desk.ring.kept.clear()
    sealed: list[bool] = []

    def seal(_: object) -> None:
        sealed.append((desk.home.root / "audit.json").exists())

    def pass_time(_: float) -> None:
        (desk.home.root / "audit.json").write_bytes(kept[0])
        desk.ring.kept.update(kept[1])

    monkeypatch.setattr("moat.runs.audit_check.DaemonClient.seal", seal)
    monkeypatch.setattr("moat.runs.audit_check.time.sleep", pass_time)

    assert desk.check().state == "ok"
    assert sealed == [False, True]


def test_a_key_beside_the_log_is_a_warning_unless_that_was_asked_for(tmp_path: Path) -> None:
    none = Ring()
    none.failure = NoKeyring("there is none")

    fallen, asked = (Desk(Home(tmp_path / name), none, env).check()
                     for name, env in (("a", {}), ("b", {"MOAT_KEYRING_BACKEND": "file"})))  # fmt: skip

    assert (fallen.state, asked.state) == ("warning", "ok")
    assert "who writes there can sign" in fallen.detail
    assert "in a file" in asked.detail


def test_a_log_that_takes_long_to_verify_is_left_to_who_asks_for_that(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_check, "LARGE_BYTES", 1024)

    check = desk.check()

    assert (check.state, check.hint) == ("warning", "run: moat audit verify")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk_is_a_failure_that_says_what_rests(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2, 1, 4096))

    check = desk.check()

    assert check.state == "failed"
    assert "requests with credentials are refused" in check.detail


def test_a_log_that_cannot_be_written_is_a_failure(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere

    assert "cannot be written" in desk.check().detail
