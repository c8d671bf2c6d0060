from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.config.checkout import LIMIT_BYTES, take


def test_a_file_is_what_it_was_when_it_was_opened(tmp_path: Path) -> None:
    (tmp_path / "moat.yaml").write_text("name: one\n")

    taken = take(tmp_path, "moat.yaml")
    (tmp_path / "moat.yaml").write_text("name: two\n")

    assert taken is not None
    assert (taken.path, taken.data) == ((tmp_path / "moat.yaml").resolve(), b"name: one\n")
    assert taken.sha256 == hashlib.sha256(b"name: one\n").hexdigest()


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert take(tmp_path, "moat.yaml") is None
    assert take(tmp_path / "absent", "moat.yaml") is None


def test_a_link_may_stay_inside_and_not_lead_out(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "sub" / "real.yaml").write_text("name: one\n")
    (tmp_path / "secret.yaml").write_text("s3cr3t\n")

    (work / "moat.yaml").symlink_to("sub/real.yaml")
    taken = take(work, "moat.yaml")
    assert taken is not None
    assert taken.path == (work / "sub" / "real.yaml").resolve()

    for target in ("../secret.yaml", "/etc/passwd"):
        (work / "moat.yaml").unlink()
        (work / "moat.yaml").symlink_to(target)
        with pytest.raises(UsageError, match="leads out of its folder"):
            take(work, "moat.yaml")


def test_a_link_to_nowhere_is_told_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "moat.yaml").symlink_to("gone")

    with pytest.raises(UsageError, match="leads nowhere"):
        take(tmp_path, "moat.yaml")


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "terminal").symlink_to("/dev/null")

    for name in ("pipe", "folder", "terminal"):
        with pytest.raises(UsageError, match="no file"):
            take(tmp_path, name)


def test_no_more_is_read_than_settings_hold(tmp_path: Path) -> None:
    (tmp_path / "moat.yaml").write_bytes(b"#" * (10 * LIMIT_BYTES))

    taken = take(tmp_path, "moat.yaml")

    assert taken is not None
    assert len(taken.data) == LIMIT_BYTES + 1


def test_what_was_read_is_not_shown_by_accident(tmp_path: Path) -> None:
    (tmp_path / "moat.yaml").write_text("env: {A: s3cr3t}\n")

    assert "s3cr3t" not in repr(take(tmp_path, "moat.yaml"))
