from __future__ import annotations

from pathlib import Path

from moat.paths import Home, private_folder
from moat.runs.results import FILE_NAME, files_in, result_of

RUN = "run_0123456789ab"


def test_a_result_is_what_is_kept_with_the_run(tmp_path: Path) -> None:
    home = Home(private_folder(tmp_path / "moat"))
    assert result_of(home, RUN) is None

    private_folder(home.run(RUN))
    (home.run(RUN) / FILE_NAME).write_bytes(b"")
    assert result_of(home, RUN) == b""


def test_files_are_counted_by_their_heads_alone() -> None:
    assert files_in(b"") == 0
    assert files_in(b"diff --git a/x b/x\n+diff --git a/y b/y\ndiff --git a/z b/z\n") == 2
