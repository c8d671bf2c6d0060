from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from moat.api.runs import ExchangeRecord
from moat.trace.network import NetworkLog, read_exchanges

RECORD = ExchangeRecord(
    "run_0123456789ab", "2026-01-01T00:00:00+00:00", "connect", "GET", "https", "api.example.com", 443, "/user", 200,
    "forwarded", grants=("github",),
)  # fmt: skip


def as_line(record: ExchangeRecord) -> bytes:
    return json.dumps(asdict(record)).encode() + b"\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run" / "network.jsonl"


def test_what_is_appended_is_read_back_in_order(file: Path) -> None:
    network = NetworkLog()
    for status in (200, 201):
        network.append(file, as_line(replace(RECORD, status=status)))

    network.flush()

    assert list(read_exchanges(file)) == [RECORD, replace(RECORD, status=201)]


def test_nothing_is_written_before_a_flush_and_everything_at_close(file: Path) -> None:
    network = NetworkLog()
    network.append(file, as_line(RECORD))
    assert not file.exists()

    network.close(file)

    assert list(read_exchanges(file)) == [RECORD]


def test_a_run_without_exchanges_has_no_file_and_reads_as_empty(file: Path) -> None:
    NetworkLog().close(file)

    assert not file.exists()
    assert list(read_exchanges(file)) == []


def test_half_a_last_line_is_skipped(file: Path) -> None:
    network = NetworkLog()
    network.append(file, as_line(RECORD))
    network.flush()
    with file.open("a") as stream:
        stream.write('{"run_id": "run_01')

    assert list(read_exchanges(file)) == [RECORD]


def test_half_a_line_of_a_killed_daemon_does_not_spoil_the_next(file: Path) -> None:
    file.parent.mkdir(mode=0o700)
    file.write_text('{"run_id": "run_01')

    network = NetworkLog()
    network.append(file, as_line(RECORD))
    network.flush()

    assert list(read_exchanges(file)) == [RECORD]


def test_a_trace_is_readable_by_the_owner_only(file: Path) -> None:
    network = NetworkLog()
    network.append(file, as_line(RECORD))
    network.flush()

    assert file.stat().st_mode & 0o777 == 0o600


def test_a_full_trace_goes_no_further_and_says_so_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = NetworkLog(limit_bytes=100)
    for _ in range(3):
        network.append(file, as_line(RECORD))
        network.flush()

    assert list(read_exchanges(file)) == [RECORD]
    assert [each.message for each in caplog.records] == ["a run's trace is full and goes no further"]


def test_a_flood_is_written_before_it_fills_the_memory(file: Path) -> None:
    network = NetworkLog()
    for _ in range(2_000):
        network.append(file, as_line(RECORD))

    assert len(list(read_exchanges(file))) > 1_000


def test_a_failing_disk_loses_exchanges_not_the_run(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.mkdir(mode=0o700)
    file.symlink_to("/dev/full")
    network = NetworkLog()
    network.append(file, as_line(RECORD))

    network.flush()

    assert "could not be written" in caplog.text
    assert file.readlink() == Path("/dev/full")
