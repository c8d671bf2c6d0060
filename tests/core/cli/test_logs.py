from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner
from moat.cli.logs import Tail, last_lines, logs, rendered
from moat.paths import Home, private_folder


def line(message: str, **facts: object) -> str:
    return json.dumps(
        {"at": "2026-01-01T10:11:12.345+00:00", "level": "info", "logger": "x", "message": message, **facts}
    )


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path))
    return private_folder(Home(tmp_path).daemon) / "daemon.log"


def test_the_end_of_the_log_is_shown_for_people(file: Path) -> None:
    file.write_text("".join(line(f"event {number}", run_id="run_1", text="a b") + "\n" for number in range(9)))

    result = CliRunner().invoke(logs, ["-n", "2"])

    assert result.stdout.splitlines() == [
        '2026-01-01 10:11:12 info    event 7  run_id=run_1 text="a b"',
        '2026-01-01 10:11:12 info    event 8  run_id=run_1 text="a b"',
    ]


def test_a_log_that_was_put_aside_is_read_before_it(file: Path) -> None:
    for number, name in enumerate(("daemon.log.2", "daemon.log.1", "daemon.log")):
        file.with_name(name).write_text(f"{number}\n")

    assert last_lines(file, 2) == ["1", "2"]
    assert last_lines(file, 9) == ["0", "1", "2"]
    assert last_lines(file, 0) == []


def test_as_json_it_is_shown_as_it_is(file: Path) -> None:
    file.write_text(line("hello") + "\nnot json\n")

    assert CliRunner().invoke(logs, ["--json"]).stdout == line("hello") + "\nnot json\n"


def test_without_a_log_nothing_is_shown(file: Path) -> None:
    result = CliRunner().invoke(logs, [])

    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize("text", ["not json", "[]", "{}", '{"at": 7}'])
def test_what_is_no_entry_is_shown_as_it_is(text: str) -> None:
    assert rendered(text) == text


def test_a_traceback_is_shown_below_its_line() -> None:
    assert rendered(line("failed", traceback="Traceback:\n  x")).endswith("failed\nTraceback:\n  x")


def test_following_goes_on_after_the_log_was_put_aside(file: Path) -> None:
    file.write_text("before\n")
    tail = Tail(file)
    assert list(tail.added()) == []
    with file.open("a") as stream:
        stream.write("one\nhal")
    assert list(tail.added()) == ["one"]
    with file.open("a") as stream:
        stream.write("f\nlast\n")
    file.rename(file.with_name("daemon.log.1"))
    file.write_text("new\n")

    assert list(tail.added()) == ["half", "last", "new"]
    tail.close()


def test_following_waits_for_a_log_that_is_not_there_yet(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(seconds: float) -> None:
        file.write_text("first\n")

    monkeypatch.setattr("time.sleep", later)
    tail = Tail(file)

    assert list(islice(tail.follow(), 1)) == ["first"]
    tail.close()
