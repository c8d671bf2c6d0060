from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.daemon import lifecycle
from moat.daemon.process import living
from moat.paths import Home

STANDIN_DAEMON = (sys.executable, "-P", str(Path(__file__).with_name("standin_daemon.py")))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def daemon_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home whose daemon, if a test starts one, has the stand-in worker; ended afterwards by its process id."""
    monkeypatch.setattr(lifecycle, "COMMAND", STANDIN_DAEMON)
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    yield home
    if (pid := living(home)) is not None:
        os.kill(pid, signal.SIGCONT)
        lifecycle.stop(home)
    assert living(home) is None
