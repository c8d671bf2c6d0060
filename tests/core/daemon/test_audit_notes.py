from __future__ import annotations

from pathlib import Path

from moat.daemon.audit_notes import RUN_OVER, left, tell
from moat.daemon.protocol import NoteRequest
from moat.paths import Home


def test_without_a_daemon_it_is_left_for_the_next_one_in_order(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert left(home) == []
    for name in ("apple", "pear"):
        assert tell(home, "granted", {"grant": name}) == ""

    found = left(home)

    assert [request.facts["grant"] for request, _ in found] == ["apple", "pear"]
    assert all(isinstance(request, NoteRequest) and request.at for request, _ in found)
    assert (home.audit_notes.stat().st_mode & 0o777) == 0o700


def test_it_goes_when_it_was_entered_and_stays_while_it_cannot_be(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    tell(home, "exec", {"program": "sh"}, "run_0123456789ab")
    ((_, done),) = left(home)
    done("no space left on the disk")
    assert len(left(home)) == 1
    done("")
    assert left(home) == []
    tell(home, "exec", {"program": "sh"}, "run_0123456789ab")
    left(home)[0][1](RUN_OVER)
    assert left(home) == []


def test_what_is_no_note_is_put_aside(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    tell(home, "granted", {"grant": "apple"})
    (home.audit_notes / "0.json").write_text("garbage")
    (home.audit_notes / "1.json").write_text('{"kind": "no such kind"}')

    assert len(left(home)) == 1
    assert sorted(path.name for path in home.audit_notes.glob("*.broken")) == ["0.broken", "1.broken"]


def test_where_nothing_can_be_written_it_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.root.write_text("a file in its place")

    assert tell(home, "granted", {"grant": "apple"}) != ""
