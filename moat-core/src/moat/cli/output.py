"""The only place that prints. Results go to standard output; our own words, warnings and errors to standard error.

Colour only on a terminal, and never where NO_COLOR is set (https://no-color.org) or TERM is "dumb". Control characters
in what is shown are made visible, so that a stored or received text cannot drive the user's terminal.

A result that cannot be written (a full disk) is an error; a word of ours that cannot changes nothing of what is done.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TextIO

from moat.api.errors import MoatError

_STYLES = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_STYLE = re.compile(r"(\x1b\[(?:0|1|2|31|32|33)m)")


def show(text: str = "") -> None:
    """Print a line of the result on standard output. Raises MoatError when it cannot be written."""
    with written() as stream:
        _write(stream, text)


def show_json(value: object) -> None:
    """Print a value as JSON on standard output. Raises MoatError when it cannot be written."""
    with written() as stream:
        print(json.dumps(value, indent=2, default=str), file=stream)  # the one place that prints


@contextmanager
def written(name: Literal["stdout", "stderr"] = "stdout") -> Iterator[TextIO]:
    """Give standard output to write a result to, and do nothing else: it is flushed at the end.

    Raises MoatError for what it did not take; BrokenPipeError, as ever, where nobody reads it any more.
    """
    try:
        stream: TextIO = getattr(sys, name)
        yield stream
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as failure:
        _begin_anew(name)
        raise MoatError(f"the output cannot be written: {os.strerror(failure.errno or 0)}") from None


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns under titles, each in one line; the last column is not padded."""
    cells = [[_visible(cell).replace("\n", "\\n").replace("\t", "\\t") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(titles), *cells]) for i in range(len(titles))]
    for number, row in enumerate([list(titles), *cells]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        show(styled(line, "dim", sys.stdout) if number == 0 else line)


def say(text: str) -> None:
    """Print a line of ours on standard error, if it takes any."""
    try:
        _write(sys.stderr, text)
    except OSError:
        _begin_anew("stderr")


def warn(text: str) -> None:
    """Print a warning on standard error."""
    say(f"{styled('warning:', 'yellow', sys.stderr)} {text}")


def show_error(error: MoatError) -> None:
    """Print an error and its hint on standard error."""
    say(f"{styled('error:', 'red', sys.stderr)} {error.problem}")
    if error.hint:
        say(f"{styled('hint:', 'bold', sys.stderr)} {error.hint}")


def styled(text: str, style: str, stream: TextIO) -> str:
    """Return text in a style ("red", "green", "yellow", "dim", "bold") where stream can show it."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if _has_colour(stream) else text


def _has_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _write(stream: TextIO, text: str) -> None:
    shown = _visible(text)
    if _has_colour(stream):
        shown = "".join(part if _STYLE.fullmatch(part) else _visible(part) for part in _STYLE.split(text))
    print(shown, file=stream, flush=True)  # the one place that prints


def _visible(text: str) -> str:
    """Return text with control characters spelled out, but for line breaks and tabs."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _begin_anew(name: Literal["stdout", "stderr"]) -> None:
    """Forget what a stream could not write: Python would try once more at the end, and exit with 120."""
    lost: TextIO = getattr(sys, name)
    number, encoding, errors = lost.fileno(), lost.encoding, lost.errors
    setattr(sys, name, open(number, "w", encoding=encoding, errors=errors, closefd=False))  # noqa: SIM115 # stays open
