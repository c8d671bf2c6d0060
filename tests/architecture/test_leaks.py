"""The look for secrets at the end of a session finds them."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest
from support.leaks import FORMS, homes_below, leaks_below


@pytest.mark.parametrize("before", [b"", b"x", b"xx", b"x:"], ids=["at 0", "at 1", "at 2", "of a user"])
@pytest.mark.parametrize("coding", ["plain", "base64", "hex"])
def test_a_secret_is_found_however_it_is_written(tmp_path: Path, before: bytes, coding: str) -> None:
    secret = before + b"tok-" + b"s3" + b"cr3t-1"
    text = {"plain": secret, "base64": base64.b64encode(secret), "hex": secret.hex().encode()}[coding]
    (tmp_path / "found").write_bytes(b'{"value": "' + text + b'"}')
    (tmp_path / "fine").write_bytes(b"nothing of interest")

    assert list(leaks_below(tmp_path)) == [f"a secret stands in {tmp_path / 'found'}"]
    assert len(set(FORMS)) == 5


def test_what_goes_while_it_is_looked_at_is_no_failure(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "found").write_bytes(b"s3" + b"cr3t")

    looking = leaks_below(tmp_path)
    first = next(looking)
    shutil.rmtree(tmp_path / ("two" if first.endswith("one/found") else "one"))

    assert list(looking) == []


def test_every_place_where_moat_wrote_is_looked_at(tmp_path: Path) -> None:
    for name in ("one/daemon/daemon.log", "two/runs/run_000000000001/run.json", "three/other.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{}")

    assert list(homes_below(tmp_path)) == [tmp_path / "one", tmp_path / "two/runs/run_000000000001"]
