from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from moat.api import Credential
from moat.api.errors import GrantMissing, StoreCorrupt, StoreError, StoreLocked, UsageError
from moat.paths import Home
from moat.store.credentials import CredentialStore
from moat.store.keyring import KeyringFailed

from core.store.keyrings import FakeKeyring

SECRET = "ghp_s3cr3t"


def a_credential(name: str = "github", secret: str = SECRET) -> Credential:
    return Credential(name, secret, "gh", {"region": "eu"}, datetime(2031, 1, 1, tzinfo=UTC))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def store(home: Home) -> CredentialStore:
    return CredentialStore(home, env={"MOAT_KEYRING_BACKEND": "file"})


def test_what_is_saved_is_loaded_whole(store: CredentialStore) -> None:
    store.save(a_credential())

    assert store.load("github") == a_credential()


def test_another_process_with_the_same_home_loads_it(store: CredentialStore, home: Home) -> None:
    store.save(a_credential())

    assert CredentialStore(home, env={}, keyring=FakeKeyring()).load("github") == a_credential()


def test_the_secret_is_in_no_file_and_every_file_is_private(store: CredentialStore, home: Home) -> None:
    store.save(a_credential())

    for path in home.root.rglob("*"):
        if path.is_file():
            assert b"s3cr3t" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_saving_again_replaces(store: CredentialStore) -> None:
    store.save(a_credential())

    store.save(a_credential(secret="ghp_s3cr3t_new"))

    assert store.load("github").secret == "ghp_s3cr3t_new"


def test_looking_creates_nothing(store: CredentialStore, home: Home) -> None:
    assert store.describe_all() == []
    for look in (store.load, store.describe, store.mark, store.remove):
        with pytest.raises(GrantMissing) as caught:
            look("github")
        assert caught.value.hint == "run: moat grant github"

    assert not home.root.exists()


def test_a_description_needs_no_key(store: CredentialStore, home: Home) -> None:
    store.save(a_credential())
    (home.root / "key").unlink()

    info = store.describe("github")

    assert (info.name, info.source, info.metadata) == ("github", "gh", {"region": "eu"})
    assert info.expires_at == "2031-01-01T00:00:00+00:00"
    assert datetime.fromisoformat(info.granted_at).tzinfo is not None
    with pytest.raises(StoreLocked):
        store.load("github")


def test_a_mark_needs_no_key_and_tells_a_credential_from_the_same_one_granted_again(
    store: CredentialStore, home: Home
) -> None:
    store.save(a_credential())
    first = store.mark("github")
    store.save(a_credential())
    second = store.mark("github")
    (home.root / "key").unlink()

    assert first != second == store.mark("github")


def test_one_spoilt_file_does_not_hide_the_others(store: CredentialStore, home: Home) -> None:
    store.save(a_credential("aws"))
    store.save(a_credential())
    (home.credentials / "aws.json").write_bytes(b"rubbish")
    (home.credentials / "Not A Name.json").write_bytes(b"")

    aws, github = store.describe_all()

    assert aws.name == "aws"
    assert aws.problem
    assert github.problem == ""


def test_removing_forgets_a_credential_even_a_spoilt_one(store: CredentialStore, home: Home) -> None:
    store.save(a_credential())
    (home.credentials / "github.json").write_bytes(b"rubbish")

    store.remove("github")

    assert store.describe_all() == []


def test_a_file_of_one_grant_is_refused_under_the_name_of_another(store: CredentialStore, home: Home) -> None:
    store.save(a_credential())
    (home.credentials / "github.json").rename(home.credentials / "anthropic.json")

    with pytest.raises(StoreCorrupt):
        store.load("anthropic")


def test_absent_unreadable_and_spoilt_are_three_errors(store: CredentialStore, home: Home) -> None:
    store.save(a_credential())
    (home.credentials / "spoilt.json").write_bytes(b"{}")
    (home.credentials / "folder.json").mkdir()

    for name, kind in (("absent", GrantMissing), ("spoilt", StoreCorrupt), ("folder", StoreError)):
        with pytest.raises(kind) as caught:
            store.load(name)
        assert type(caught.value) is kind


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "A", "a\0", "x" * 64])
def test_names_that_could_leave_the_folder_are_refused_everywhere(store: CredentialStore, name: str) -> None:
    for use in (store.load, store.describe, store.remove, lambda bad: store.save(a_credential(bad))):
        with pytest.raises(UsageError):
            use(name)


def test_a_locked_keyring_keeps_what_is_stored_as_it_is(home: Home) -> None:
    keyring = FakeKeyring()
    store = CredentialStore(home, env={}, keyring=keyring)
    store.save(a_credential())
    keyring.failure = KeyringFailed("locked")

    with pytest.raises(StoreLocked):
        store.save(a_credential(secret="ghp_s3cr3t_new"))

    keyring.failure = None
    assert store.load("github") == a_credential()


def test_first_grants_at_the_same_time_make_one_key(home: Home) -> None:
    keyring = FakeKeyring()
    names = [f"grant-{number}" for number in range(8)]
    start = threading.Barrier(len(names))

    def save(name: str) -> None:
        start.wait()
        CredentialStore(home, env={}, keyring=keyring).save(a_credential(name))

    threads = [threading.Thread(target=save, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert keyring.puts == 1
    store = CredentialStore(home, env={}, keyring=keyring)
    assert [store.load(name).secret for name in names] == ["ghp_s3cr3t"] * len(names)


def test_profiles_are_separate_sets_of_credentials(home: Home, store: CredentialStore) -> None:
    work = CredentialStore(home, env={"MOAT_KEYRING_BACKEND": "file"}, profile="work")
    store.save(a_credential())
    with pytest.raises(GrantMissing, match="profile work") as caught:
        work.load("github")
    assert caught.value.hint == "run: moat grant --profile work github"
    assert work.describe_all() == []

    work.save(a_credential(secret="ghp_s3cr3t_work"))

    assert (store.load("github").secret, work.load("github").secret) == (SECRET, "ghp_s3cr3t_work")
    assert store.in_profile("work").load("github").secret == "ghp_s3cr3t_work"
    assert work.in_profile("").load("github").secret == SECRET
    assert work.in_profile("default").load("github").secret == SECRET
    work.remove("github")
    assert [info.name for info in store.describe_all()] == ["github"]


def test_a_credential_that_is_put_into_another_profile_is_refused(home: Home, store: CredentialStore) -> None:
    store.save(a_credential())
    work = store.in_profile("work")
    home.credentials_of("work").mkdir(parents=True)
    stolen = (home.credentials / "github.json").read_bytes()
    (home.credentials_of("work") / "github.json").write_bytes(stolen)

    with pytest.raises(StoreCorrupt, match="another profile"):
        work.load("github")
    with pytest.raises(StoreCorrupt, match="another profile"):
        work.describe("github")


@pytest.mark.parametrize("name", ["../x", "", "a b", "Work"])
def test_a_profile_is_a_name_and_never_a_path(store: CredentialStore, name: str) -> None:
    if name:
        with pytest.raises(UsageError, match="profile"):
            store.in_profile(name)
    else:
        store.in_profile(name)


def test_a_key_is_not_made_anew_while_another_profile_has_credentials(home: Home, store: CredentialStore) -> None:
    store.in_profile("work").save(a_credential())
    (home.root / "store.json").unlink()

    with pytest.raises(StoreLocked):
        store.save(a_credential("claude"))
