from __future__ import annotations

import json
import resource
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from moat.api.runs import ExchangeRecord
from moat.trace import network as module
from moat.trace.network import Gap, NetworkLog, read_exchanges, read_trace

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


def test_a_long_trace_goes_on_in_a_new_file_and_is_read_as_one(file: Path) -> None:
    network = NetworkLog(limit_bytes=2 * len(as_line(RECORD)))
    for status in range(200, 207):
        network.append(file, as_line(replace(RECORD, status=status)))
        network.flush()

    assert [each.status for each in read_exchanges(file)] == list(range(200, 207))
    assert sorted(each.name for each in file.parent.iterdir()) == [
        "network.1.jsonl", "network.2.jsonl", "network.3.jsonl", "network.jsonl",
    ]  # fmt: skip


def test_a_flood_washes_away_neither_the_beginning_nor_the_end_and_is_counted(file: Path) -> None:
    network = NetworkLog(limit_bytes=1)
    for status in range(200, 250):
        network.append(file, as_line(replace(RECORD, status=status)))
        network.flush()

    first, gap, *latest = read_trace(file)
    assert isinstance(gap, Gap)
    assert [each.status for each in (first, *latest) if isinstance(each, ExchangeRecord)] == [200, 247, 248, 249]
    assert (gap.marker, gap.exchanges) == ("dropped", 46)
    assert gap.at.endswith("+00:00")
    assert len(list(file.parent.iterdir())) == 5


def test_a_file_that_is_put_aside_while_it_is_read_is_read_once(file: Path) -> None:
    network = NetworkLog(limit_bytes=2 * len(as_line(RECORD)))
    for status in (200, 201, 202):
        network.append(file, as_line(replace(RECORD, status=status)))
        network.flush()

    reading = read_exchanges(file)
    seen = [next(reading).status]
    network.append(file, as_line(RECORD) * 2)
    network.flush()

    assert seen + [each.status for each in reading] == [200, 201, 202]


def test_a_flood_is_written_before_it_fills_the_memory(file: Path) -> None:
    network = NetworkLog()
    for _ in range(2_000):
        network.append(file, as_line(RECORD))

    assert len(list(read_exchanges(file))) > 1_000


def test_a_disk_that_recovers_has_lost_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.mkdir(mode=0o700)
    file.symlink_to("/dev/full")
    network = NetworkLog()
    for status in (200, 201):
        network.append(file, as_line(replace(RECORD, status=status)))
        network.flush()
    assert file.readlink() == Path("/dev/full")
    file.unlink()

    network.flush()

    assert [each.status for each in read_exchanges(file)] == [200, 201]
    assert [each.message for each in caplog.records] == ["exchanges could not be written"]
    assert network.lost == 0


def test_what_a_failing_disk_loses_is_counted_where_it_is_missing(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_WAITING_BYTES", 2 * len(as_line(RECORD)))
    file.parent.mkdir(mode=0o700)
    file.symlink_to("/dev/full")
    network = NetworkLog()
    for _ in range(5):
        network.append(file, as_line(RECORD))
        network.flush()
    file.unlink()
    network.flush()

    gap, *exchanges = read_trace(file)
    assert isinstance(gap, Gap)
    assert (gap.marker, gap.exchanges, len(exchanges), network.lost) == ("lost", 4, 1, 4)


def test_a_run_that_ends_on_a_full_disk_is_let_go(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.mkdir(mode=0o700)
    file.symlink_to("/dev/full")
    network = NetworkLog()
    network.append(file, as_line(RECORD) * 3)

    network.close(file)

    assert network.lost == 3
    assert caplog.records[-1].message == "exchanges are missing from a trace"


def test_a_disk_that_fills_up_in_the_middle_of_a_line_has_whole_lines_only(file: Path) -> None:
    line = as_line(RECORD)
    network = NetworkLog()
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then the limit is an error of write, as a full disk is
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) * 5 // 2, hard))
    try:
        network.append(file, line * 4)
        network.flush()
        written = file.read_bytes()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    network.flush()

    assert written == line * 2
    assert file.read_bytes() == line * 4
