"""A trace as text: a table for programs, one that fits a terminal for people, and totals. Prints nothing.

10:11:12  GET   200  api.example.com/user     github   13 ms  ▏ ░░█
10:11:13  POST  403  upload.example.com/                0 ms  ▏    █
          strict policy: … · --allow-host upload.example.com
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from moat.api.runs import ExchangeRecord
from moat.cli.clean import shown_size
from moat.trace.har import url_of
from moat.trace.summary import HostTotal, ModelTotal, Summary

TITLES = ("AT", "OUTCOME", "STATUS", "METHOD", "URL", "GRANTS", "MS", "WHY")
HOST_TITLES = ("HOST", "REQUESTS", "DENIED", "FAILED", "UP", "DOWN", "MEDIAN", "SLOWEST", "GRANTS")
MODEL_TITLES = ("MODEL", "CALLS", "INPUT", "CACHED", "OUTPUT", "COST (ESTIMATE)")
_ROOMY = (8, 7, 6, 1_000, 16, 8)
_LINE_TITLES = ("AT", "METHOD", "STATUS", "URL", "GRANTS", "TIME")
_URL, _FIRST_TO_GO = 3, (4, 0, 5)  # columns of a line: the URL stays longest
_MIN_URL_CHARS, _MAX_GRANT_CHARS = 20, 16
_WATERFALL_CHARS, _URL_BESIDE_CHARS = 24, 30  # of a waterfall, and of a URL that leaves room for it


@dataclass(frozen=True, slots=True)
class Line:
    """One exchange on a terminal. style: of output, "" for none. notes: below it."""

    text: str
    style: str = ""
    notes: tuple[str, ...] = ()


def as_rows(exchanges: Sequence[ExchangeRecord]) -> list[tuple[str, ...]]:
    """Return exchanges as rows under TITLES, oldest first."""
    return [
        (
            each.at[11:19],
            each.outcome,
            str(each.status) if each.status else "-",
            each.method,
            url_of(each),
            ", ".join(each.grants) or "-",
            f"{each.duration_ms:.0f}",
            "; ".join(part for part in (usage_words(each), each.reason, each.allow_line) if part),
        )
        for each in exchanges
    ]


def fitted(exchanges: Sequence[ExchangeRecord], width: int, *, has_waterfall: bool = True) -> Iterator[Line]:
    """Yield a line of titles and one for each exchange, none longer than width where that can be.

    has_waterfall: where there is room for it.
    """
    cells = [_cells(each) for each in exchanges]
    widths = [max(len(row[at]) for row in [_LINE_TITLES, *cells]) for at in range(len(_LINE_TITLES))]
    if not has_waterfall:  # one by one, as they come: the next is to stand below this one
        widths = [max(pair) for pair in zip(widths, _ROOMY, strict=True)]
    columns = _columns(widths, width)
    room = _room(widths, columns, width)
    bars = has_waterfall and len(exchanges) > 1 and room - _WATERFALL_CHARS - 3 >= _URL_BESIDE_CHARS
    widths[_URL] = max(min(widths[_URL], room - (_WATERFALL_CHARS + 3 if bars else 0)), _MIN_URL_CHARS)
    yield Line(_joined(_LINE_TITLES, widths, columns), "dim")
    drawn = _waterfall(exchanges) if bars else [""] * len(exchanges)
    for exchange, row, bar in zip(exchanges, cells, drawn, strict=True):
        yield Line(_joined(row, widths, columns, bar), _style(exchange), _notes(exchange))


def usage_words(exchange: ExchangeRecord) -> str:
    """Return what a language model was asked for, "" for no such call."""
    if not exchange.model:
        return ""
    cached = f" ({count(exchange.cached_tokens)} cached)" if exchange.cached_tokens else ""
    tokens = f"{count(exchange.input_tokens)} in{cached}, {count(exchange.output_tokens)} out"
    return f"{exchange.model}: {tokens}{f', about {cost(exchange.cost_usd)}' if exchange.cost_usd else ''}"


def host_rows(totals: Summary) -> list[tuple[str, ...]]:
    """Return the hosts under HOST_TITLES, and all of them together where there are several."""
    return [_host_row(each) for each in (*totals.hosts, *((totals.total,) if len(totals.hosts) > 1 else ()))]


def model_rows(models: Sequence[ModelTotal]) -> list[tuple[str, ...]]:
    """Return language models under MODEL_TITLES."""
    return [
        (
            each.model,
            str(each.calls),
            count(each.input_tokens),
            count(each.cached_tokens),
            count(each.output_tokens),
            cost(each.cost_usd) if each.cost_usd else "not known",
        )
        for each in models
    ]


def count(number: int) -> str:
    """Return a number of tokens for people."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1_000_000:.2f}M" if number >= 1_000_000 else f"{number / 1_000:.1f}k"


def cost(dollars: float) -> str:
    """Return an amount of money for people: a call may cost a fraction of a cent."""
    return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.4f}"


def span(milliseconds: float) -> str:
    """Return a time for people."""
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1_000:.1f} s" if milliseconds < 120_000 else f"{milliseconds / 60_000:.1f} min"


def _host_row(total: HostTotal) -> tuple[str, ...]:
    sizes = (shown_size(total.request_bytes), shown_size(total.response_bytes))
    times = (span(total.median_ms), span(total.slowest_ms))
    counts = (str(total.requests), str(total.denied), str(total.failed))
    return (total.host or "-", *counts, *sizes, *times, ", ".join(total.grants) or "-")


def _cells(exchange: ExchangeRecord) -> tuple[str, ...]:
    grants = ", ".join(exchange.grants) or "-"
    shown = grants if len(grants) <= _MAX_GRANT_CHARS else f"{grants[: _MAX_GRANT_CHARS - 1]}…"
    status = str(exchange.status) if exchange.status else "-"
    url = url_of(exchange).removeprefix("https://")
    return (exchange.at[11:19], exchange.method or "-", status, url, shown, span(exchange.duration_ms))


def _columns(widths: Sequence[int], width: int) -> tuple[int, ...]:
    """Return which columns are shown: on a narrow terminal the grants go first, then the times."""
    shown = tuple(range(len(widths)))
    for each in _FIRST_TO_GO:
        if _room(widths, shown, width) < min(widths[_URL], _MIN_URL_CHARS):
            shown = tuple(at for at in shown if at != each)
    return shown


def _room(widths: Sequence[int], columns: Sequence[int], width: int) -> int:
    """Return how many characters are left for the URL."""
    return width - sum(widths[at] for at in columns if at != _URL) - 2 * (len(columns) - 1)


def _joined(row: Sequence[str], widths: Sequence[int], columns: Sequence[int], bar: str = "") -> str:
    cells = []
    for at in columns:
        cell, width = row[at], widths[at]
        short = cell if len(cell) <= width else f"{cell[: width - 1]}…"
        cells.append(short.rjust(width) if at == len(widths) - 1 else short.ljust(width))
    return "  ".join([*cells, *([f"▏{bar}"] if bar else [])]).rstrip()


def _waterfall(exchanges: Sequence[ExchangeRecord]) -> list[str]:
    """Return a bar for each: when in the time of all of them it waited (░), and when its answer came (█)."""
    starts = [datetime.fromisoformat(each.at).timestamp() * 1000 for each in exchanges]
    first = min(starts)
    whole = max(start + each.duration_ms for start, each in zip(starts, exchanges, strict=True)) - first or 1.0

    def column(moment: float) -> int:
        return min(int((moment - first) / whole * _WATERFALL_CHARS), _WATERFALL_CHARS - 1)

    bars = []
    for start, each in zip(starts, exchanges, strict=True):
        begin, answer = column(start), column(start + (each.first_byte_ms or each.duration_ms))
        end = max(column(start + each.duration_ms), answer)
        bars.append(" " * begin + "░" * (answer - begin) + "█" * (end - answer + 1))
    return bars


def _style(exchange: ExchangeRecord) -> str:
    if exchange.outcome != "forwarded" or exchange.status >= 500:
        return "red"
    return "yellow" if exchange.error or exchange.status >= 400 else ""


def _notes(exchange: ExchangeRecord) -> tuple[str, ...]:
    why = " · ".join(part for part in (exchange.reason, exchange.allow_line) if part)
    return tuple(f"          {note}" for note in (usage_words(exchange), why) if note)
