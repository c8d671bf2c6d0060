"""A real keyring, locked while the daemon is replaced: runs stay closed, and open by themselves once it is unlocked."""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from moat.api.errors import StoreLocked
from moat.daemon.lifecycle import ensure_running
from moat.paths import Home, private_folder
from moat.store.credentials import CredentialStore
from support.installation import end
from support.living import SECRET, a_sealed_run, configured, ended_after, killed
from support.upstream import Upstream

from faults.counts import Counts
from faults.test_killed import PLAIN_URL, SAYS_WHY, WAITING, answered

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not all(map(shutil.which, ("bwrap", "dbus-daemon", "gnome-keyring-daemon"))),
        reason="bubblewrap, dbus-daemon or gnome-keyring-daemon is not installed",
    ),
]
SAVE = f"""
import sys
from pathlib import Path
from moat.api import Credential
from moat.paths import Home
from moat.store.credentials import CredentialStore
CredentialStore(Home(Path(sys.argv[1]))).save(Credential("github", {SECRET!r}, "test"))
"""
LOCK = """
import secretstorage
secretstorage.get_default_collection(secretstorage.dbus_init()).lock()
"""
UNLOCK = """
import secretstorage
from secretstorage.util import DBusAddressWrapper, format_secret, open_session
bus = secretstorage.dbus_init()
secret = format_secret(open_session(bus), b"pass", "text/plain")
without_a_dialog = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface"  # what the login screen uses
service = DBusAddressWrapper("/org/freedesktop/secrets", without_a_dialog, bus)
collection = secretstorage.get_default_collection(bus)
service.call("UnlockWithMasterPassword", "o(oayays)", collection.collection_path, secret)
assert not collection.is_locked()
"""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A desktop's bus, and nothing of the tests' own environment that leads past its keyring."""
    monkeypatch.delenv("MOAT_KEYRING_BACKEND", raising=False)
    monkeypatch.setenv("HOME", str(private_folder(tmp_path / "user")))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private_folder(tmp_path / "run")))
    with a_bus() as address:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        yield


@contextmanager
def a_bus() -> Iterator[str]:
    words = ["dbus-daemon", "--session", "--nofork", "--print-address"]
    bus = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert bus.stdout is not None
        yield bus.stdout.readline().decode().strip()
    finally:
        end(bus)


@contextmanager
def a_keyring() -> Iterator[None]:
    """Run the user's keyring, opened by its password."""
    command = ["gnome-keyring-daemon", "--unlock", "--components=secrets", "--foreground"]
    daemon = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert daemon.stdin is not None
    daemon.stdin.write(b"pass")
    daemon.stdin.close()
    daemon.stdin = None  # communicate() would flush it
    try:
        yield
    finally:
        end(daemon)


def said(program: str, *words: str) -> None:
    subprocess.run([sys.executable, "-c", program, *words], check=True, timeout=60)


async def test_a_run_waits_for_the_real_keyring_and_opens_by_itself_once_it_is_unlocked(
    session: None, upstream: Upstream, tmp_path: Path, times: int
) -> None:
    home = configured(tmp_path / "home", upstream)
    with a_keyring(), ended_after(home):
        said(SAVE, str(home.root))
        assert not (home.root / "key").exists()
        client = ensure_running(home)
        async with a_sealed_run(home, client, tmp_path, script=SAYS_WHY) as sealed:
            await answered(sealed, lambda answer: answer.endswith(" 200"))
            first = await asyncio.to_thread(Counts(home).now)
            for _ in range(times):
                at = len(upstream.seen)
                said(LOCK)
                killed(client.health().pid)
                client = ensure_running(home)

                await answered(sealed, lambda answer: WAITING in answer and "keyring" in answer, url=PLAIN_URL)
                assert len(upstream.seen) == at

                said(UNLOCK)
                await answered(sealed, lambda answer: answer.endswith(" 200"))
            await asyncio.to_thread(Counts(home).become, first)
    assert {each.header("Authorization") for each in upstream.seen} == {f"Bearer {SECRET}"}


def test_no_attempt_at_a_locked_keyring_keeps_a_connection(session: None, tmp_path: Path, times: int) -> None:
    home = Home(private_folder(tmp_path / "home"))
    with a_keyring():
        said(SAVE, str(home.root))
        said(LOCK)
        store = CredentialStore(home)
        gc.disable()  # or they may be let go by chance
        try:
            before = _locked_out(store)
            assert [_locked_out(store) for _ in range(times)] == [before] * times
        finally:
            gc.enable()


def _locked_out(store: CredentialStore) -> int:
    """Try to get a credential; return how many descriptors there are afterwards."""
    with pytest.raises(StoreLocked):
        store.load("github")
    return len(list(Path("/proc/self/fd").iterdir()))
