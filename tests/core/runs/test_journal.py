from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.redaction import marks_of
from moat.runs.journal import FILE_NAME, Journal, Printed, put_aside, read_entries

STREAMS = ("stdout", "stderr")


def entries(folder: Path) -> list[Printed]:
    return [*put_aside(folder), *read_entries((folder / FILE_NAME).read_text().splitlines())]


def test_streams_are_kept_apart_and_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("stdout", b"one\n")
    journal.write("stderr", b"two\n")
    journal.write("stdout", b"three")
    journal.close()

    assert [(each.stream, each.text) for each in entries(tmp_path)] == [
        ("stdout", "one\n"), ("stderr", "two\n"), ("stdout", "three"),
    ]  # fmt: skip
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_it_is_there_before_anything_is_printed_wherever_it_can_be(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        journal = Journal(folder)
        journal.begin()
        journal.close()

    assert entries(tmp_path) == []


def test_secrets_are_taken_out_of_each_stream_before_anything_is_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, secrets=("s3cr3t-value",))
    for piece in (b"key: s3cr3t", b"-value\n", b"ends with s3cr"):
        journal.write("stdout", piece)
        journal.write("stderr", b"s3cr3t-value\n")
    journal.close()

    text = {stream: "".join(each.text for each in entries(tmp_path) if each.stream == stream) for stream in STREAMS}
    assert text == {"stdout": "key: [redacted]\nends with s3cr", "stderr": "[redacted]\n" * 3}


def test_secrets_of_which_only_marks_are_known_are_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, known=marks_of(["s3cr3t-value"]))
    for piece in (b"it is s3cr3t-", b"value!\n"):
        journal.write("stdout", piece)
    journal.close()

    text = (tmp_path / "console.jsonl").read_text()
    assert "it is " in text
    assert "[redacted]!" in text
    assert "value" not in text


@given(st.lists(st.binary(max_size=9)))
def test_what_was_printed_comes_back_byte_for_byte(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name))
        for piece in pieces:
            journal.write("stdout", piece)
        journal.close()
        kept = entries(Path(name)) if (Path(name) / FILE_NAME).exists() else []

    assert b"".join(each.data for each in kept) == b"".join(pieces)


def test_a_long_journal_is_put_aside_and_the_one_before_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path, limit_bytes=1000)
    for number in range(100):
        journal.write("stdout", b"%d\n" % number)
    journal.close()

    texts = [each.text for each in entries(tmp_path)]
    assert texts == [f"{number}\n" for number in range(100 - len(texts), 100)]
    assert 10 < len(texts) < 50
    assert sorted(each.name for each in tmp_path.iterdir()) == [FILE_NAME, f"{FILE_NAME}.1"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "moat-test", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)


def test_a_full_disk_costs_output_that_is_counted_and_nothing_else(small_disk: Path) -> None:
    journal = Journal(small_disk)
    filler = small_disk / "filler"
    journal.write("stdout", b"before\n")
    fill(filler)
    for _ in range(10):
        journal.write("stdout", b"y" * 999 + b"\n")
    filler.unlink()
    journal.write("stdout", b"after\n")
    journal.close()

    kept = entries(small_disk)
    lost = sum(each.lost for each in kept)
    assert (kept[0].text, kept[-1].text) == ("before\n", "after\n")
    assert lost > 0
    assert lost + sum(len(each.data) for each in kept) == 10_000 + len("before\nafter\n")


def test_half_a_line_of_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"at":"t","stream":"stdout","text":"whole"}\n[1]\n{"at":"t","str')

    assert [each.text for each in entries(tmp_path)] == ["whole"]
