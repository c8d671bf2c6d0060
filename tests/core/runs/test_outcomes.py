from __future__ import annotations

from pathlib import Path

from moat.paths import Home, private_folder
from moat.runs.outcomes import FILE_NAME, Commits, commits_of, repository_path, write_commits

RUN = "run_0123456789ab"


def test_what_is_written_down_is_read_again(tmp_path: Path) -> None:
    home = Home(private_folder(tmp_path / "moat"))
    commits = Commits("topic", "a" * 40, "b" * 40, 3, is_moved=False, others=("refs/moat/run_1/x",))
    assert commits_of(home, RUN) is None

    write_commits(home, RUN, commits)

    assert commits_of(home, RUN) == commits
    (home.run(RUN) / FILE_NAME).write_text("{}")
    assert commits_of(home, RUN) is None


def test_a_runs_repository_lies_beside_moats_own_folder_which_no_run_is_shown() -> None:
    path = repository_path(Home(Path("/home/someone/.moat")), RUN)

    assert path == Path(f"/home/someone/.moat-copies/{RUN}.own/repository.git")
