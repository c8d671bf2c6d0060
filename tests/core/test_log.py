from __future__ import annotations

import io
import json
import logging
import logging.handlers
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.log import JsonLines, Redactor, log_to_file
from moat.redaction import MAX_MARKS, REDACTED

SECRET = "ghp_s3cr3t_value"


def line(redactor: Redactor, message: str, *args: object, **extra: object) -> dict[str, object]:
    record = logging.LogRecord("moat.x", logging.INFO, __file__, 1, message, args, None)
    record.__dict__.update(extra)
    text = JsonLines(redactor).format(record)
    assert "\n" not in text
    entry = json.loads(text)
    assert isinstance(entry, dict)
    return entry


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_record_is_one_json_object_with_its_fields() -> None:
    entry = line(Redactor(), "run registered", run_id="run_000000000000")

    assert (entry["message"], entry["level"], entry["logger"]) == ("run registered", "info", "moat.x")
    assert entry["run_id"] == "run_000000000000"
    assert str(entry["at"]).endswith("+00:00")


def test_a_known_secret_is_blotted_out_wherever_it_stands() -> None:
    redactor = Redactor()
    redactor.learn(SECRET)

    entry = line(redactor, "sent %s", SECRET, header=f"Bearer {SECRET}", nested={"a": [SECRET]})

    assert SECRET not in json.dumps(entry)
    assert entry["header"] == f"Bearer {REDACTED}"


def test_what_is_left_of_a_secret_that_holds_another_is_not_written_either() -> None:
    redactor = Redactor()
    for secret in (SECRET, f"{SECRET}_and_more"):
        redactor.learn(secret)

    assert redactor.clean(f"{SECRET}_and_more") == REDACTED


def test_of_many_secrets_those_learnt_last_have_marks() -> None:
    redactor = Redactor()
    for number in [*range(MAX_MARKS), 0, MAX_MARKS]:
        redactor.learn(f"{number:04}-s3cr3t")

    begins = {bytes.fromhex(mark.split()[0]) for mark in redactor.marks().marks}
    assert len(begins) == MAX_MARKS
    assert b"0001" not in begins
    assert {b"0000", b"0128"} <= begins


def test_a_short_string_is_not_taken_for_a_secret() -> None:
    redactor = Redactor()
    redactor.learn("abc")

    assert redactor.clean("abcdef") == "abcdef"


def test_a_value_cannot_forge_a_line() -> None:
    assert line(Redactor(), "asked", path='/\n{"level":"error"}')["path"] == '/\n{"level":"error"}'


def test_a_traceback_is_kept_and_redacted() -> None:
    redactor = Redactor()
    redactor.learn(SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError as failure:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "failed", (), (ValueError, failure, failure.__traceback__)
        )

    text = JsonLines(redactor).format(record)

    assert "ValueError" in text
    assert SECRET not in text


def test_a_log_file_is_readable_by_its_owner_only_and_appended(tmp_path: Path, root_logger: logging.Logger) -> None:
    path = tmp_path / "daemon.log"
    path.write_text("before\n")
    path.chmod(0o644)

    log_to_file(path, Redactor())
    root_logger.info("started")

    assert path.stat().st_mode & 0o777 == 0o600
    before, after = path.read_text().splitlines()
    assert before == "before"
    assert json.loads(after)["message"] == "started"


def test_a_long_log_is_put_aside_and_another_process_follows(tmp_path: Path, root_logger: logging.Logger) -> None:
    path, seen = tmp_path / "daemon.log", io.StringIO()
    follower = logging.handlers.WatchedFileHandler(path)
    log_to_file(path, Redactor(), limit_bytes=400, also=seen)

    for number in range(20):
        root_logger.info("event %d", number)
        follower.emit(logging.makeLogRecord({"msg": f"worker {number}"}))
    follower.close()

    kept = [path.with_name(f"daemon.log.{number}") for number in range(1, 4)]
    assert all(each.stat().st_size < 1_000 for each in (path, *kept))
    assert not path.with_name("daemon.log.4").exists()
    assert "worker 19" in path.read_text() + kept[0].read_text()
    assert len(seen.getvalue().splitlines()) == 20


def test_a_log_that_others_put_aside_is_begun_anew(tmp_path: Path, root_logger: logging.Logger) -> None:
    path = tmp_path / "daemon.log"
    log_to_file(path, Redactor())
    path.rename(tmp_path / "daemon.log.1")

    root_logger.info("here")

    assert json.loads(path.read_text())["message"] == "here"
