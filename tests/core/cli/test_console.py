from __future__ import annotations

import re
from pathlib import Path

import pytest
from moat.api.runs import RunInfo
from moat.cli.console import last
from moat.cli.main import run
from moat.paths import Home, private_folder
from moat.runs.journal import Journal, Printed
from moat.trace.store import RunStore
from support.installation import end, eventually, installation

INFO = RunInfo(
    "run_0123456789ab", "calm-otter", "fake", "permissive", (), "/srv/work", ("true",), "2026-01-01T00:00:00Z",
    "stopped", exit_code=0,
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(private_folder(tmp_path / "moat"))
    monkeypatch.setenv("MOAT_HOME", str(made.root))
    RunStore(made).write(INFO)
    return made


@pytest.fixture
def kept(home: Home) -> Home:
    journal = Journal(home.run(INFO.run_id))
    journal.write("stdout", b"one\ntwo\n")
    journal.write("stderr", b"wrong\n")
    journal.write("stdout", b"three\xff")
    journal.close()
    return home


def test_output_goes_to_where_it_went(kept: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["logs", "calm-otter"]) == 0

    assert capfdbinary.readouterr() == (b"one\ntwo\nthree\xff", b"wrong\n")


def test_without_a_name_it_is_the_newest(kept: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    run(["logs", "calm-otter"])
    named = capfdbinary.readouterr()

    assert run(["logs"]) == 0

    assert named.out
    assert capfdbinary.readouterr() == named


def test_without_any_run_it_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "none"))

    assert run(["logs"]) == 1

    assert "run: moat run -- COMMAND" in capfd.readouterr().err


def test_the_last_lines_and_their_times(kept: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["logs", "-t", "-n", "3", "calm-otter"]) == 0

    out, err = capfdbinary.readouterr()
    stamp = rb"20\d\d-\d\d-\d\dT[0-9:.+]+ "
    assert re.fullmatch(stamp + rb"two\n" + stamp + rb"three\xff", out)
    assert re.fullmatch(stamp + rb"wrong\n", err)


def test_as_json_every_piece_is_a_line(kept: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["logs", "--json", "calm-otter"]) == 0

    assert capfd.readouterr().out.splitlines() == (kept.run(INFO.run_id) / "console.jsonl").read_text().splitlines()


def test_following_a_run_that_is_over_ends(kept: Home, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["logs", "-f", "-n", "1", "calm-otter"]) == 0

    assert capfdbinary.readouterr().out == b"three\xff"


def test_a_run_of_which_nothing_is_kept_says_why(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["logs", "calm-otter"]) == 2

    assert "nothing is kept of what calm-otter printed" in capfd.readouterr().err


def test_lost_output_is_counted_where_it_is_missing(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    (home.run(INFO.run_id) / "console.jsonl").write_text('{"at":"t","stream":"lost","bytes":42}\n')

    run(["logs", "calm-otter"])

    assert "42 bytes are missing here" in capfd.readouterr().err


def test_what_a_service_printed_is_shown_instead(kept: Home, capfd: pytest.CaptureFixture[str]) -> None:
    journal = Journal(private_folder(kept.run(INFO.run_id) / "services" / "db"))
    journal.write("stderr", b"ready\n")
    journal.close()

    assert run(["logs", "calm-otter", "--service", "db"]) == 0
    assert capfd.readouterr() == ("", "ready\n")


@pytest.mark.parametrize("name", ["cache", "..", "../../run_0123456789ab", ""])
def test_a_service_that_is_none_is_an_error(kept: Home, capfd: pytest.CaptureFixture[str], name: str) -> None:
    private_folder(kept.run(INFO.run_id) / "services" / "db")

    assert run(["logs", "calm-otter", "--service", name or "-"]) == 2

    assert "there are: db" in capfd.readouterr().err


def printed(*texts: str) -> list[Printed]:
    return [Printed("t", "stdout", text) for text in texts]


@pytest.mark.parametrize(
    ("texts", "lines", "shown"),
    [
        (("a\nb", "c\nd\n"), 2, "bc\nd\n"),
        (("a\nb\nc",), 1, "c"),
        (("a\n", "b\n"), 0, ""),
        (("a\n",), 5, "a\n"),
        ((), 1, ""),
    ],
)
def test_lines_are_counted_across_pieces(texts: tuple[str, ...], lines: int, shown: str) -> None:
    assert "".join(each.text for each in last(printed(*texts), lines)) == shown


def test_a_run_that_lives_is_followed_from_its_last_lines_to_its_end() -> None:
    with installation() as moat:
        moat.file("work/file", "")
        script = "echo one; echo two; while [ ! -e go ]; do sleep 0.05; done; echo three; exit 4"
        moat.ok("run", "-d", "work", "--runtime", "process", "--name", "live", "--", "sh", "-c", script)
        eventually("it has spoken", lambda: "two" in moat.ok("logs", "live"))
        process = moat.start("logs", "-f", "-n", "1", "live")
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"two\n"
            (moat.home / "work" / "go").touch()
            assert process.communicate(timeout=30) == (b"three\n", b"")
            assert process.returncode == 0
        finally:
            end(process)
