from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath

import pytest
from moat.api.agents import KeptFile, Session
from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.paths import Home
from moat.runs.sessions import HEAD_BYTES, Sessions

from core.testing.test_agents import Pal


class Keeper(Pal):
    """An agent whose every file is a session."""

    kept = (".pal/said", ".pal/more")

    def sessions(self, files: Iterable[KeptFile]) -> Sequence[Session]:
        return [
            Session(PurePath(file.path).name, file.head.decode(), file.modified_at, began(file.head)) for file in files
        ]


def began(head: bytes) -> datetime | None:
    """Return when a session began, where its first word is a time."""
    try:
        return datetime.fromisoformat(head.decode().partition(" ")[0])
    except ValueError:
        return None


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    made = Sessions(Home(tmp_path / ".moat"), Keeper(), Path("/srv/My work"))
    made.mounts("/home/moat")
    return made


def left(sessions: Sessions, name: str, text: str = "x", at: int = 1_900_000_000) -> Path:
    path = sessions.folder / ".pal_said" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (at, at))
    return path


def a_run(started: str, ended: str, *command: str, workspace: str = "/srv/My work") -> RunInfo:
    return RunInfo("run_000000000000", "n", "fake", "strict", (), workspace, ("pal", *command), started, ended_at=ended)


def stamp(hour: int, minute: int = 0) -> int:
    return int(datetime(2030, 1, 1, hour, minute, tzinfo=UTC).timestamp())


def test_what_is_kept_lies_beside_moats_folder_apart_for_each_agent_and_workspace(tmp_path: Path) -> None:
    home = Home(tmp_path / ".moat")
    one, two = (Sessions(home, Keeper(), Path(path)) for path in ("/srv/My work", "/srv/my-work"))

    mounts = one.mounts("/home/moat")

    assert one.folder.parent == tmp_path / ".moat-sessions" / "pal"
    assert one.folder.name.startswith("my-work-")
    assert one.folder != two.folder
    assert [(mount.source, mount.target, mount.read_only) for mount in mounts] == [
        (one.folder / ".pal_said", "/home/moat/.pal/said", False),
        (one.folder / ".pal_more", "/home/moat/.pal/more", False),
    ]
    assert [oct(mount.source.stat().st_mode & 0o777) for mount in mounts] == ["0o700", "0o700"]


def test_an_agent_that_keeps_nothing_has_no_folder(tmp_path: Path) -> None:
    sessions = Sessions(Home(tmp_path / ".moat"), Pal(), Path("/srv/work"))

    assert sessions.mounts("/home/moat") == ()
    assert sessions.list() == []
    assert not sessions.folder.exists()


def test_sessions_are_listed_the_newest_first(sessions: Sessions) -> None:
    left(sessions, "old", at=1_900_000_000)
    left(sessions, "deep/new", "hello", at=1_900_000_100)

    assert [(each.id, each.title) for each in sessions.list()] == [("new", "hello"), ("old", "x")]
    assert sessions.last() == "new"


def test_links_pipes_and_long_files_of_a_run_cannot_trick_who_lists(sessions: Sessions, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cr3t")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "other").write_text("s3cr3t")
    left(sessions, "long", "a" * (HEAD_BYTES + 1))
    folder = sessions.folder / ".pal_said"
    (folder / "link").symlink_to(secret)
    (folder / "folder").symlink_to(outside)
    os.mkfifo(folder / "pipe")

    assert [(each.id, len(each.title)) for each in sessions.list()] == [("long", HEAD_BYTES)]


def test_a_session_is_named_by_the_beginning_of_its_id(sessions: Sessions) -> None:
    for name in ("abc-1", "abc-2", "abc"):
        left(sessions, name)

    assert sessions.named("abc-1", None) == "abc-1"
    assert sessions.named("abc", None) == "abc"
    with pytest.raises(UsageError, match="several sessions begin with 'ab'"):
        sessions.named("ab", None)
    with pytest.raises(UsageError, match="no session or run called 'xyz'") as refused:
        sessions.named("xyz", None)
    assert refused.value.hint == "run: moat sessions"


def test_a_run_names_the_session_that_it_worked_on(sessions: Sessions) -> None:
    left(sessions, "before", at=int(datetime(2030, 1, 1, 9, tzinfo=UTC).timestamp()))
    left(sessions, "within", at=int(datetime(2030, 1, 1, 10, 30, tzinfo=UTC).timestamp()))
    left(sessions, "after", at=int(datetime(2030, 1, 1, 12, tzinfo=UTC).timestamp()))

    assert sessions.named("n", a_run("2030-01-01T10:00:00+00:00", "2030-01-01T11:00:00+00:00")) == "within"
    with pytest.raises(UsageError, match="the run n left no session"):
        sessions.named("n", a_run("2030-01-02T10:00:00+00:00", "2030-01-02T11:00:00+00:00"))


def test_without_a_session_there_is_no_last_one(sessions: Sessions) -> None:
    with pytest.raises(UsageError, match="pal has no session") as refused:
        sessions.last()
    assert refused.value.hint == "begin one: moat pal"


BEGAN, ENDED = "2030-01-01T10:00:00+00:00", "2030-01-01T11:00:00+00:00"


def test_a_run_names_its_session_also_once_another_has_gone_on_with_it(sessions: Sessions) -> None:
    left(sessions, "begun", "2030-01-01T10:00:03+00:00 hello", at=stamp(15))
    left(sessions, "earlier", "2030-01-01T08:00:00+00:00 hello", at=stamp(16))

    assert sessions.named("n", a_run(BEGAN, ENDED)) == "begun"
    assert sessions.named("n", a_run(BEGAN, ENDED, "--resume", "earlier")) == "earlier"


def test_a_session_that_another_run_began_meanwhile_is_not_taken_for_a_runs_own(sessions: Sessions) -> None:
    left(sessions, "own", "2030-01-01T10:00:03+00:00 hello", at=stamp(10, 50))
    left(sessions, "others", "2030-01-01T10:30:00+00:00 hello", at=stamp(10, 55))

    assert sessions.named("n", a_run(BEGAN, ENDED)) == "own"
    assert sessions.named("n", a_run("2030-01-01T10:29:59+00:00", ENDED)) == "others"


def test_a_run_that_worked_elsewhere_is_told_with_the_command_that_goes_on_there(sessions: Sessions) -> None:
    left(sessions, "own", "2030-01-01T10:00:03+00:00 hello")

    with pytest.raises(UsageError, match="the run n worked in another workspace, /srv/other one") as refused:
        sessions.named("n", a_run(BEGAN, ENDED, workspace="/srv/other one"))

    assert refused.value.hint == "run: moat pal '/srv/other one' --resume n"


def test_a_session_of_another_workspace_is_told_with_the_command_that_goes_on_there(
    sessions: Sessions, tmp_path: Path
) -> None:
    home = Home(tmp_path / ".moat")
    other = Sessions(home, Keeper(), Path("/srv/other"))
    other.mounts("/home/moat")
    left(other, "abc-1")

    with pytest.raises(UsageError, match="the session 'abc' is of another workspace, /srv/other") as refused:
        sessions.refer_to_others(home, "abc", ["/srv/My work", "/srv/none", "/srv/other"])
    left(sessions, "abc-2")
    sessions.refer_to_others(home, "abc", ["/srv/My work", "/srv/other"])
    sessions.refer_to_others(home, "xyz", ["/srv/My work", "/srv/other"])

    assert refused.value.hint == "run: moat pal /srv/other --resume abc"
