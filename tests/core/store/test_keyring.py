"""The bounds around a keyring, and one real SecretService: gnome-keyring on a bus of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import InitError, KeyringLocked
from moat.store.keyring import KeyringFailed, NoKeyring, SystemKeyring

needs_a_bus = pytest.mark.skipif(
    not (shutil.which("dbus-run-session") and shutil.which("gnome-keyring-daemon")),
    reason="dbus-run-session or gnome-keyring-daemon is not installed",
)


class Working(KeyringBackend):
    priority = 1

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


class PlaintextKeyring(Working):
    """Named like the one of keyrings.alt."""


class Forgetful(Working):
    def set_password(self, service: str, username: str, password: str) -> None:
        return None


class Failing(Working):
    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure

    def get_password(self, service: str, username: str) -> str | None:
        raise self.failure


class Hanging(Working):
    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.release.wait()
        return None


class Chainer(Working):
    def __init__(self, *backends: KeyringBackend) -> None:
        super().__init__()
        self.backends = backends


def use(monkeypatch: pytest.MonkeyPatch, backend: KeyringBackend) -> None:
    monkeypatch.setattr(keyring, "get_keyring", lambda: backend)


def test_what_is_put_is_got_under_the_service_moat(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Working()
    use(monkeypatch, backend)

    SystemKeyring().put("store-1", "a2V5")

    assert SystemKeyring().get("store-1") == "a2V5"
    assert SystemKeyring().get("store-2") is None
    assert list(backend.entries) == [("moat", "store-1")]


@pytest.mark.parametrize("kind", [PlaintextKeyring, null.Keyring, fail.Keyring], ids=["plaintext", "null", "fail"])
def test_backends_that_protect_nothing_are_refused(monkeypatch: pytest.MonkeyPatch, kind: type[KeyringBackend]) -> None:
    use(monkeypatch, kind())

    with pytest.raises(NoKeyring):
        SystemKeyring().put("store-1", "a2V5")
    with pytest.raises(NoKeyring):
        SystemKeyring().get("store-1")


def test_backends_of_keyrings_alt_are_refused_by_module(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type("EncryptedKeyring", (Working,), {"__module__": "keyrings.alt.file"})
    use(monkeypatch, kind())

    with pytest.raises(NoKeyring, match="EncryptedKeyring does not protect"):
        SystemKeyring().get("store-1")


def test_of_a_chain_the_first_that_protects_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Working()
    use(monkeypatch, Chainer(PlaintextKeyring(), good))

    SystemKeyring().put("store-1", "a2V5")

    assert good.entries


@pytest.mark.parametrize(
    "failure",
    [KeyringLocked("locked\nmore"), InitError("Prompt dismissed"), OSError("no bus"), RuntimeError("odd")],
    ids=["locked", "dismissed", "no bus", "anything else"],
)
def test_every_failure_is_one_error_of_one_line(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    use(monkeypatch, Failing(failure))

    with pytest.raises(KeyringFailed, match=type(failure).__name__) as caught:
        SystemKeyring().get("store-1")

    assert "\n" not in str(caught.value)


def test_a_locked_keyring_s_connection_is_let_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        pass

    opened: list[weakref.ref[Connection]] = []

    class Leaving(Working):
        def get_password(self, service: str, username: str) -> str | None:
            connection = Connection()
            opened.append(weakref.ref(connection))
            raise KeyringLocked("locked")

    use(monkeypatch, Leaving())
    with pytest.raises(KeyringFailed):
        SystemKeyring().get("store-1")

    assert [each() for each in opened] == [None]


def test_so_is_one_of_a_keyring_that_fails_on_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        pass

    opened: list[weakref.ref[Connection]] = []

    def collection(connection: Connection) -> str:
        opened.append(weakref.ref(connection))
        raise ConnectionError("no collection")

    class Failing(Working):
        def get_password(self, service: str, username: str) -> str | None:
            try:
                return collection(Connection())
            except ConnectionError as failure:
                raise InitError("Failed to create the collection") from failure

    use(monkeypatch, Failing())
    with pytest.raises(KeyringFailed, match="Failed to create the collection"):
        SystemKeyring().get("store-1")

    assert [each() for each in opened] == [None]


def test_a_keyring_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Hanging()
    use(monkeypatch, backend)

    with pytest.raises(KeyringFailed, match="did not answer"):
        SystemKeyring(timeout_s=0.01).get("store-1")
    backend.release.set()


def test_a_keyring_that_forgets_at_once_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Forgetful())

    with pytest.raises(KeyringFailed, match="did not keep"):
        SystemKeyring().put("store-1", "a2V5")


LOAD = """
from moat.api.errors import StoreError
from moat.paths import find_home
from moat.store.credentials import CredentialStore
try:
    print("loaded", CredentialStore(find_home()).load("github").source)
except StoreError as failure:
    print(type(failure).__name__, failure.problem)
"""
SAVE = """
from moat.api import Credential
from moat.paths import find_home
from moat.store.credentials import CredentialStore
CredentialStore(find_home()).save(Credential("github", "ghp_s3cr3t", "test"))
"""
FORGET = """
import os
from moat.paths import find_home
from moat.store.key import KeyHolder
print(*(KeyHolder(find_home(), os.environ, print).forget() for _ in range(2)))
"""
UNLOCK = "printf pass | gnome-keyring-daemon --unlock --components=secrets --daemonize >/dev/null && "


def in_session(root: Path, script: str, *, unlocked: bool) -> str:
    """Run a Python script on a D-Bus of its own, with gnome-keyring unlocked, or only startable and locked."""
    runtime = root / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "XDG_RUNTIME_DIR": str(runtime), "LANG": "C.UTF-8"}
    shell = (UNLOCK if unlocked else "") + 'exec "$0" -c "$1"'
    argv = ["dbus-run-session", "--", "sh", "-c", shell, sys.executable, script]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if done.returncode == 0 else done.stderr


@needs_a_bus
@pytest.mark.timeout(60)
def test_a_real_secret_service_holds_the_key_and_a_locked_one_is_told(tmp_path: Path) -> None:
    assert in_session(tmp_path, SAVE, unlocked=True) == ""
    assert in_session(tmp_path, LOAD, unlocked=True) == "loaded test"
    assert not (tmp_path / ".moat" / "key").exists()

    locked = in_session(tmp_path, LOAD, unlocked=False)
    refused = in_session(tmp_path, SAVE, unlocked=False)

    assert locked.startswith("StoreLocked the keyring")
    assert "StoreLocked" in refused
    assert not (tmp_path / ".moat" / "key").exists()
    assert in_session(tmp_path, LOAD, unlocked=True) == "loaded test"

    assert in_session(tmp_path, FORGET, unlocked=True) == "True False"  # once, and then there is nothing left
    assert in_session(tmp_path, LOAD, unlocked=True).startswith("StoreLocked the keyring no longer holds")
