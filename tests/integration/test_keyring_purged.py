"""`moat uninstall` and a real keyring: the store's key and the audit's go with the rest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.test_keyring import a_bus, a_keyring
from moat.paths import private_folder
from support.installation import Installation, installation

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not all(map(shutil.which, ("dbus-daemon", "gnome-keyring-daemon"))),
        reason="dbus-daemon or gnome-keyring-daemon is not installed",
    ),
]
LABELS = """
import secretstorage
for item in secretstorage.get_default_collection(secretstorage.dbus_init()).get_all_items():
    print(item.get_label())
"""


@pytest.fixture
def moat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An installation on a desktop, whose keyring is open."""
    monkeypatch.setenv("HOME", str(private_folder(tmp_path / "user")))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private_folder(tmp_path / "run")))
    with a_bus() as address:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        desktop = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "DBUS_SESSION_BUS_ADDRESS": address}
        with a_keyring(), installation(MOAT_KEYRING_BACKEND="", **desktop) as made:
            yield made


def labels() -> list[str]:
    done = subprocess.run([sys.executable, "-c", LABELS], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()


def test_the_keys_are_in_the_keyring_until_all_is_removed(moat: Installation) -> None:
    moat.grant("github", "ghp_s3cr3t0000000000000000000000000000")
    moat.ok("proxy", "start")
    moat.ok("audit", "key")
    assert not (moat.home / ".moat" / "key").exists()
    assert len(labels()) == 2

    refused = moat.run("uninstall")
    assert (refused.returncode, len(labels())) == (2, 2)
    moat.ok("uninstall", "--yes")

    assert labels() == []
    assert not (moat.home / ".moat").exists()
