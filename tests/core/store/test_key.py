from __future__ import annotations

import json
from pathlib import Path

import pytest
from moat.api.errors import MoatError, StoreCorrupt, StoreLocked
from moat.paths import Home, private_folder
from moat.store.key import KeyHolder
from moat.store.keyring import KeyringFailed, NoKeyring

from core.store.keyrings import FakeKeyring


def holder(home: Home, keyring: FakeKeyring, warnings: list[str] | None = None, *, file: bool = False) -> KeyHolder:
    env = {"MOAT_KEYRING_BACKEND": "file"} if file else {}
    return KeyHolder(home, env, (warnings if warnings is not None else []).append, keyring)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(private_folder(tmp_path / "home"))


def test_the_first_key_goes_into_the_keyring_and_nowhere_else(home: Home) -> None:
    keyring, warnings = FakeKeyring(), list[str]()

    key = holder(home, keyring, warnings).get_or_make()

    assert holder(home, keyring).get() == key
    assert holder(home, keyring).get_or_make() == key
    assert keyring.puts == 1
    assert not (home.root / "key").exists()
    assert warnings == []


def test_store_json_says_where_the_key_lives_without_telling_it(home: Home) -> None:
    keyring = FakeKeyring()

    key = holder(home, keyring).get_or_make()

    record = (home.root / "store.json").read_text()
    assert json.loads(record)["lives_in"] == "keyring"
    assert key.hex() not in record
    assert next(iter(keyring.entries.values())) not in record


def test_two_homes_of_one_user_have_two_accounts(home: Home, tmp_path: Path) -> None:
    keyring = FakeKeyring()

    first = holder(home, keyring).get_or_make()
    second = holder(Home(private_folder(tmp_path / "other")), keyring).get_or_make()

    assert first != second
    assert len(keyring.entries) == 2
    assert holder(home, keyring).get() == first


def test_without_a_keyring_the_key_is_a_private_file_and_a_warning(home: Home) -> None:
    keyring, warnings = FakeKeyring(failure=NoKeyring("there is none on this machine")), list[str]()

    key = holder(home, keyring, warnings).get_or_make()

    assert (home.root / "key").stat().st_mode & 0o777 == 0o600
    assert holder(home, keyring).get() == key
    assert len(warnings) == 1
    assert str(home.root / "key") in warnings[0]


def test_the_file_can_be_asked_for_and_then_nobody_is_warned(home: Home) -> None:
    keyring, warnings = FakeKeyring(), list[str]()

    key = holder(home, keyring, warnings, file=True).get_or_make()

    assert (keyring.entries, warnings) == ({}, [])
    assert holder(home, keyring).get() == key


def a_keyring_that_is(state: str, keyring: FakeKeyring) -> FakeKeyring:
    account = next(iter(keyring.entries))
    broken = {
        "locked": FakeKeyring(keyring.entries, KeyringFailed("KeyringLocked")),
        "gone": FakeKeyring(failure=NoKeyring("there is none on this machine")),
        "hung": FakeKeyring(keyring.entries, KeyringFailed("it did not answer in 30 s")),
        "emptied": FakeKeyring(),
        "replaced": FakeKeyring({account: "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg="}),
        "spoilt": FakeKeyring({account: "not base64!"}),
    }
    return broken[state]


@pytest.mark.parametrize("state", ["locked", "gone", "hung", "emptied", "replaced", "spoilt"])
def test_a_second_key_is_never_made(home: Home, state: str) -> None:
    keyring = FakeKeyring()
    key = holder(home, keyring).get_or_make()
    record = (home.root / "store.json").read_bytes()
    broken = a_keyring_that_is(state, keyring)

    for attempt in (holder(home, broken).get, holder(home, broken).get_or_make):
        with pytest.raises(StoreLocked) as caught:
            attempt()
        assert caught.value.hint

    assert broken.puts == 0
    assert not (home.root / "key").exists()
    assert (home.root / "store.json").read_bytes() == record
    assert holder(home, keyring).get() == key


def test_forcing_the_file_does_not_replace_a_key_in_the_keyring(home: Home) -> None:
    keyring = FakeKeyring()
    holder(home, keyring).get_or_make()

    with pytest.raises(StoreLocked) as caught:
        holder(home, keyring, file=True).get_or_make()

    assert "unset MOAT_KEYRING_BACKEND" in caught.value.hint


def test_a_key_file_that_others_can_read_is_refused(home: Home) -> None:
    holder(home, FakeKeyring(), file=True).get_or_make()
    (home.root / "key").chmod(0o640)

    with pytest.raises(StoreLocked) as caught:
        holder(home, FakeKeyring()).get()

    assert caught.value.hint == f"run: chmod 600 {home.root / 'key'}"


def test_a_key_file_that_is_a_link_is_refused(home: Home, tmp_path: Path) -> None:
    holder(home, FakeKeyring(), file=True).get_or_make()
    (home.root / "key").rename(tmp_path / "elsewhere")
    (home.root / "key").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StoreLocked, match="cannot be read"):
        holder(home, FakeKeyring()).get()


@pytest.mark.parametrize("data", [None, b"", b"AAAA", b"\xff" * 40], ids=["gone", "empty", "short", "no text"])
def test_a_lost_or_spoilt_key_file_is_told_and_not_replaced(home: Home, data: bytes | None) -> None:
    holder(home, FakeKeyring(), file=True).get_or_make()
    path = home.root / "key"
    path.unlink() if data is None else path.write_bytes(data)

    with pytest.raises(StoreLocked):
        holder(home, FakeKeyring(), file=True).get_or_make()

    assert (path.read_bytes() if path.exists() else None) == data


@pytest.mark.parametrize(
    "record",
    [b"", b"[]", b'{"lives_in": "moon", "installation": "1", "fingerprint": "2"}', b'{"lives_in": "file"}'],
    ids=["empty", "a list", "unknown place", "incomplete"],
)
def test_a_spoilt_record_is_told_and_not_replaced(home: Home, record: bytes) -> None:
    (home.root / "store.json").write_bytes(record)

    with pytest.raises(StoreCorrupt):
        holder(home, FakeKeyring()).get_or_make()

    assert (home.root / "store.json").read_bytes() == record


def test_a_lost_record_beside_credentials_never_makes_a_new_key(home: Home) -> None:
    private_folder(home.credentials)
    (home.credentials / "github.json").write_bytes(b"{}")

    with pytest.raises(MoatError, match=r"store\.json is missing"):
        holder(home, FakeKeyring()).get_or_make()


def test_a_crash_between_key_and_record_leaves_one_key(home: Home) -> None:
    key = holder(home, FakeKeyring(), file=True).get_or_make()
    (home.root / "store.json").unlink()

    assert holder(home, FakeKeyring()).get_or_make() == key


def test_a_key_in_the_keyring_can_be_forgotten_and_one_in_a_file_goes_with_it(tmp_path: Path) -> None:
    keyring, home, other = FakeKeyring(), Home(private_folder(tmp_path / "a")), Home(private_folder(tmp_path / "b"))
    holder(home, keyring).get_or_make()
    holder(other, keyring, file=True).get_or_make()

    assert holder(home, keyring).forget()
    assert keyring.entries == {}
    assert not holder(home, keyring).forget()
    assert not holder(other, keyring).forget()
    assert not holder(Home(tmp_path / "none"), keyring).forget()


def test_a_keyring_that_does_not_let_the_key_go_is_told_with_its_name(home: Home) -> None:
    keyring = FakeKeyring()
    holder(home, keyring).get_or_make()
    keyring.failure = KeyringFailed("locked")

    with pytest.raises(StoreLocked, match="cannot be used: locked") as raised:
        holder(home, keyring).forget()

    assert "store-" in raised.value.hint
