"""Figures as Markdown: medians with their spread, one row a figure, one column a peer; then ratios against targets."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from bench.targets import TARGETS, Medians

Results = Mapping[tuple[str, str, str], Sequence[float]]  # (scenario, figure, peer) → one value a round

_UNITS = {
    "p50_us": "p50 µs", "p99_us": "p99 µs", "per_s": "requests/s", "cpu_us": "CPU µs each", "mb_per_s": "MB/s",
    "cpu_s_per_gb": "CPU s/GB", "load_busy": "load busy %", "idle_mb": "idle MB", "waiting_mb": "1,000 waiting MB",
    "busy_mb": "1,000 streaming MB", "cold_cpu_us": "CPU µs, cold", "p50_ms": "p50 ms", "worker_cpu_us": "CPU µs, worker",
}  # fmt: skip


def medians(results: Results) -> Medians:
    """Return the median of every figure."""
    return {key: statistics.median(values) for key, values in results.items()}


def figures(results: Results, peers: Sequence[str]) -> str:
    """Return the table of figures. ± is half of what lies between a figure's least and greatest."""
    rows = list(dict.fromkeys((scenario, figure) for scenario, figure, _ in results))
    lines = [_row("scenario", "figure", *peers), "|---|---|" + "---:|" * len(peers)]
    last = ""
    for scenario, figure in rows:
        cells = [_cell(figure, results.get((scenario, figure, peer), ())) for peer in peers]
        lines.append(_row("" if scenario == last else scenario, _UNITS[figure], *cells))
        last = scenario
    return "\n".join(lines)


def ratios(found: Medians) -> str:
    """Return moat's ratios with a mark each: holds, or does not."""
    lines = [_row("figure", "over", "ratio", "target", ""), "|---|---|---:|---|---|"]
    for target in TARGETS:
        ratio = target.ratio(found)
        if ratio is not None:
            name = f"{target.scenario}, {_UNITS[target.figure]}"
            mark = "holds" if target.holds(ratio) else "**missed**"
            lines.append(_row(name, target.over, f"{ratio:.2f}", target.limit, mark))
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(figure: str, values: Iterable[float]) -> str:
    known = [100 * value if figure == "load_busy" else value for value in values]
    if not known:
        return "-"
    spread = (max(known) - min(known)) / 2
    return _number(statistics.median(known)) + (f" ±{_number(spread)}" if len(known) > 1 else "")


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
