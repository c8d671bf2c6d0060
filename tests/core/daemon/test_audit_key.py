from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.errors import StoreCorrupt, StoreLocked
from moat.audit.chain import Tip
from moat.audit.heads import Anchor, public_key_of
from moat.daemon.audit_key import AuditKeys
from moat.paths import Home
from moat.store.keyring import KeyringFailed, NoKeyring

ANCHOR = Anchor(7, Tip(42, "a" * 64))
FILE = {"MOAT_KEYRING_BACKEND": "file"}


class Ring:
    """A keyring in memory, which may fail."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.failure: KeyringFailed | None = None

    def get(self, account: str) -> str | None:
        if self.failure:
            raise self.failure
        return self.kept.get(account)

    def put(self, account: str, value: str) -> None:
        if self.failure:
            raise self.failure
        self.kept[account] = value

    def remove(self, account: str) -> bool:
        if self.failure:
            raise self.failure
        return self.kept.pop(account, None) is not None


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def ring() -> Ring:
    return Ring()


def test_the_key_is_made_once_and_lives_in_the_keyring_apart_from_the_log(home: Home, ring: Ring) -> None:
    keys = AuditKeys(home, {}, ring)
    assert keys.look() is None
    secret = keys.obtain()
    keys.remember(replace(secret, anchor=ANCHOR))

    again = AuditKeys(home, {}, ring).obtain()

    assert again == replace(secret, anchor=ANCHOR)
    assert AuditKeys(home, {}, ring).look() == again
    (account,) = ring.kept
    assert account.startswith("audit-")
    told = json.loads((home.root / "audit.json").read_text())
    assert told == {"version": 1, "lives_in": "keyring", "account": account, "public_key": public_key_of(secret.seed)}
    assert [path.name for path in home.root.iterdir()] == ["audit.json"]
    assert secret.seed.hex() not in repr(secret)


def test_who_removes_everything_in_the_home_does_not_remove_the_memory_of_it(home: Home, ring: Ring) -> None:
    secret = AuditKeys(home, {}, ring).obtain()
    AuditKeys(home, {}, ring).remember(replace(secret, anchor=ANCHOR))
    (home.root / "audit.json").unlink()

    assert AuditKeys(home, {}, ring).obtain() == replace(secret, anchor=ANCHOR)


def test_without_a_keyring_or_when_told_so_it_is_a_file_of_the_users_only(home: Home, ring: Ring) -> None:
    ring.failure = NoKeyring("there is none")
    secret = AuditKeys(home, {}, ring).obtain()

    assert stat.S_IMODE((home.root / "audit.key").stat().st_mode) == 0o600
    assert AuditKeys(home, FILE, ring).look() == secret
    (home.root / "audit.json").unlink()
    assert AuditKeys(home, FILE, ring).look() == secret
    place = AuditKeys(home, FILE, ring).place
    assert place is not None
    assert place.lives_in == "file"


def test_a_locked_keyring_makes_no_second_key_anywhere(home: Home, ring: Ring) -> None:
    ring.failure = KeyringFailed("locked")
    with pytest.raises(StoreLocked, match="locked"):
        AuditKeys(home, {}, ring).obtain()
    assert not home.root.exists()
    ring.failure = None
    secret = AuditKeys(home, {}, ring).obtain()
    ring.failure = KeyringFailed("locked")
    for ask in (AuditKeys(home, {}, ring).obtain, AuditKeys(home, {}, ring).look, AuditKeys(home, {}, ring).forget):
        with pytest.raises(StoreLocked):
            ask()
    with pytest.raises(StoreLocked):
        AuditKeys(home, {}, ring).remember(secret)
    with pytest.raises(StoreLocked, match="MOAT_KEYRING_BACKEND"):
        AuditKeys(home, FILE, ring).look()


def test_a_key_that_is_gone_or_spoilt_is_told_and_not_replaced(home: Home, ring: Ring) -> None:
    AuditKeys(home, {}, ring).obtain()
    (account,) = ring.kept
    for value in ("", "{}", '{"key": "AAAA", "counter": 1, "seq": 1, "hash": ""}', "[]"):
        ring.kept[account] = value
        with pytest.raises(StoreCorrupt):
            AuditKeys(home, {}, ring).obtain()
    del ring.kept[account]
    with pytest.raises(StoreCorrupt, match="gone from the keyring"):
        AuditKeys(home, {}, ring).obtain()
    assert ring.kept == {}


def test_uninstalling_takes_it_out_of_the_keyring(home: Home, ring: Ring) -> None:
    assert not AuditKeys(home, {}, ring).forget()
    AuditKeys(home, {}, ring).obtain()
    assert AuditKeys(home, {}, ring).forget()
    assert ring.kept == {}
