"""Read with Prometheus's own parser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moat.api.runs import ExchangeRecord
from moat.daemon.metrics import text
from moat.daemon.protocol import GrantState, Health
from moat.proxy.counts import BUCKETS_S, OUTCOMES, Counts
from prometheus_client.parser import text_string_to_metric_families

HEALTH = Health(
    1, "1.2.3", 19080, 3, "2026-01-01T00:00:00+00:00", 0.5, 2, task_count=9,
    grants=(GrantState("", "s3cr3t-project", "fresh"), GrantState("", "other", "fresh")),
)  # fmt: skip
RECORD = ExchangeRecord(
    "run_1", "now", "connect", "GET", "https", "a.example", 443, '/"outcome":"denied","status":500', 200, "forwarded",
    request_bytes=5, response_bytes=7, duration_ms=20.0, scrubbed=2,
)  # fmt: skip


def counts(*records: ExchangeRecord) -> Counts:
    found = Counts()
    for record in records:
        found.record(record)
    return found


def read(tally: Counts, lost: int = 0) -> dict[tuple[str, str], float]:
    """Return every sample by its name and the value of its one label."""
    families = list(text_string_to_metric_families(text(HEALTH, tally, lost)))
    assert all(family.documentation and family.type != "unknown" for family in families)
    return {
        (sample.name, "".join(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_what_the_worker_counts_is_told() -> None:
    tally = counts(RECORD, replace(RECORD, outcome="denied", status=403), replace(RECORD, status=404))
    tally.add(counts(replace(RECORD, outcome="failed", status=0, duration_ms=1e9, scrubbed=0)))

    found = read(tally, lost=4)
    assert [found["moat_requests_total", outcome] for outcome in OUTCOMES] == [2, 1, 0, 1]
    assert [found["moat_responses_total", f"{digit}xx"] for digit in range(1, 6)] == [0, 1, 0, 2, 0]
    assert (found["moat_request_bytes_total", ""], found["moat_response_bytes_total", ""]) == (20, 28)
    assert (found["moat_secrets_scrubbed_total", ""], found["moat_trace_lost_total", ""]) == (6, 4)


def test_times_are_a_histogram() -> None:
    tally = counts(*(replace(RECORD, duration_ms=each) for each in (5.0, 5.1, 1_000_000.0)))

    found = read(tally)

    name = "moat_request_duration_seconds"
    assert [found[f"{name}_bucket", each] for each in ("0.005", "0.01", "300", "+Inf")] == [1, 2, 2, 3]
    assert (found[f"{name}_count", ""], round(found[f"{name}_sum", ""], 4)) == (3, 1000.0101)


def test_the_daemon_says_how_it_is() -> None:
    found = read(Counts())

    assert found["moat_build_info", "1.2.3"] == 1
    assert (found["moat_runs", ""], found["moat_worker_up", ""], found["moat_daemon_tasks", ""]) == (3, 1, 9)
    assert (found["moat_grants", "fresh"], found["moat_grants", "revoked"]) == (2, 0)
    assert found["process_resident_memory_bytes", ""] > 1_000_000
    assert found["process_open_fds", ""] > 2


def test_nothing_has_a_label_that_grows_with_what_runs_do(tmp_path: Path) -> None:
    tally = Counts()
    before = set(read(tally))
    for number in range(100):
        tally.add(counts(replace(RECORD, host=f"h{number}.example", path=f"/{number}", run_id=f"run_{number}")))

    assert set(read(tally)) == before
    assert "s3cr3t" not in text(HEALTH, tally, 0)
    assert list(BUCKETS_S) == sorted(BUCKETS_S)
