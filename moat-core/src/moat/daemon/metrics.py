"""What operators count: requests, bytes, times, runs, grants, as text that Prometheus reads. Sends nothing anywhere.

    worker ─ sums with each batch of lines ─▶ Counts ─▶ GET /v1/metrics, and 127.0.0.1 where config.yaml says so

No label has more values than stand in this file: no host, no path, no run, no grant's name. The format is text 0.0.4:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from moat.daemon.protocol import Health
from moat.proxy.counts import BUCKETS_S, OUTCOMES, Counts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GRANT_STATES = ("static", "fresh", "failing", "revoked")


def text(health: Health, tally: Counts, lost: int, proc: Path = Path("/proc/self")) -> str:
    """Return everything. lost: exchanges that no trace has, since a disk was full."""
    return "".join(f"{line}\n" for line in (*_of_requests(tally, lost), *_of_daemon(health), *_of_process(proc)))


def _of_requests(tally: Counts, lost: int) -> Iterator[str]:
    yield from _family("moat_requests_total", "counter", "Requests of runs, by what became of them.",
                       ((f'outcome="{name}"', tally.outcomes[name]) for name in OUTCOMES))  # fmt: skip
    yield from _family("moat_responses_total", "counter", "Answers to runs, by class of status.",
                       ((f'code="{digit}xx"', _of_class(tally, digit)) for digit in range(1, 6)))  # fmt: skip
    yield from _one("moat_request_bytes_total", "counter", "Bytes of bodies sent by runs.", tally.request_bytes)
    yield from _one("moat_response_bytes_total", "counter", "Bytes of bodies sent to runs.", tally.response_bytes)
    yield from _one("moat_secrets_scrubbed_total", "counter", "Secrets taken out of answers.", tally.scrubbed)
    yield from _one("moat_trace_lost_total", "counter", "Requests that a full disk kept out of traces.", lost)
    yield from _histogram(tally)


def _of_class(tally: Counts, digit: int) -> int:
    return sum(count for status, count in tally.statuses.items() if status // 100 == digit)


def _histogram(tally: Counts) -> Iterator[str]:
    name, total = "moat_request_duration_seconds", 0
    yield f"# HELP {name} How long requests of runs took."
    yield f"# TYPE {name} histogram"
    for limit, count in zip((*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"), tally.buckets, strict=True):
        total += count
        yield f'{name}_bucket{{le="{limit}"}} {total}'
    yield f"{name}_sum {tally.seconds:.6f}"
    yield f"{name}_count {total}"


def _of_daemon(health: Health) -> Iterator[str]:
    states: list[str] = [grant.state for grant in health.grants]
    yield from _family("moat_build_info", "gauge", "The daemon's version.", [(f'version="{health.version}"', 1)])
    yield from _one("moat_runs", "gauge", "Live runs.", health.run_count)
    yield from _family("moat_grants", "gauge", "Grants that live runs spend, by how they are.",
                       ((f'state="{state}"', states.count(state)) for state in GRANT_STATES))  # fmt: skip
    yield from _one("moat_worker_up", "gauge", "Whether the proxy's worker is there.", int(bool(health.worker_pid)))
    yield from _one("moat_daemon_uptime_seconds", "gauge", "How long the daemon runs.", f"{health.uptime_s:.3f}")
    yield from _one("moat_daemon_tasks", "gauge", "What the daemon does at once.", health.task_count)


def _of_process(proc: Path) -> Iterator[str]:
    """Yield what Prometheus's own libraries tell of a process, under the same names."""
    times = os.times()
    seconds = f"{times.user + times.system:.2f}"
    pages = int((proc / "statm").read_text().split()[1])
    size, files = pages * os.sysconf("SC_PAGE_SIZE"), sum(1 for _ in (proc / "fd").iterdir())
    yield from _one("process_cpu_seconds_total", "counter", "Processor time of the daemon, in seconds.", seconds)
    yield from _one("process_resident_memory_bytes", "gauge", "Memory of the daemon, in bytes.", size)
    yield from _one("process_open_fds", "gauge", "Open descriptors of the daemon.", files)


def _one(name: str, kind: str, what: str, value: object) -> Iterator[str]:
    return _family(name, kind, what, [("", value)])


def _family(name: str, kind: str, what: str, values: Iterable[tuple[str, object]]) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
