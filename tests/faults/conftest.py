"""Faults in a loop: MOAT_FAULTS says how often, `make faults` says twenty times; a few times otherwise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.paths import Home, private_folder
from support.living import ended_after, granted
from support.upstream import Upstream, running_upstream

from faults.counts import Counts

TIMES = int(os.environ.get("MOAT_FAULTS", "2"))  # read here: the suite hides MOAT_… from its tests
SECRET = "gho_s3cr3t_integration"


@pytest.fixture
def times() -> int:
    """How often each fault happens."""
    return TIMES


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream(authorization=f"Bearer {SECRET}") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    monkeypatch.setattr(tempfile, "tempdir", str(private_folder(tmp_path / "tmp")))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    home = granted(tmp_path / "home", upstream)
    before = Counts(home).now()
    with ended_after(home):
        yield home
    Counts(home).become(before)  # of whatever a test does, nothing remains


@pytest.fixture
def counts(home: Home) -> Counts:
    return Counts(home)
