"""Request paths as policies and rules read them: decoded once, and only where every server would decode them alike.

Some servers decode again what a proxy of theirs decoded, some end a path at a `?` that was encoded, or a segment at a
`;` (RFC 3986 §3.3). What that would make of a path is found by reading it in every such way: all the readings must fit
a pattern, or none.

Patterns, over the decoded path: `*` is one segment or a part of one, never nothing; `**` is any number of segments.

    /repos/*/issues    /repos/x/issues           /admin/**    /admin, /admin/, /admin/x/y; not /administrator
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

_AMBIGUOUS = re.compile(r"\\|//|%(?:2f|5c|2e|00|u[0-9a-f]{4})|[\x00-\x1f\x7f]", re.IGNORECASE)  # %uXXXX: IIS
_ENCODED = re.compile(r"%[0-9a-f]{2}", re.IGNORECASE)
_END = re.compile(r"[?#]")
_REREAD = frozenset("%?#;")
_MAX_LAYERS = 4  # of encoding; nobody decodes so often


def decoded_path(path: str) -> str | None:
    """Return path with its percent-encoding removed, or None where servers may read it in more than one way."""
    decoded = _unquoted(path)
    return None if decoded is None or readings(decoded) is None else decoded


def readings(decoded: str) -> tuple[str, ...] | None:
    """Return every path that a server may take a decoded one for, itself first; None for a doubtful one.

    Mostly that is the one. A server that decodes again reads `%61dmin` as `admin`.
    """
    if not _REREAD & frozenset(decoded):
        return (decoded,)
    found = [decoded]
    while _ENCODED.search(found[-1]):
        again = _unquoted(found[-1])
        if again is None or len(found) >= _MAX_LAYERS:
            return None
        found.append(again)
    found += [path[: end.start()] for path in found if (end := _END.search(path))]
    found += ["/".join(part.partition(";")[0] for part in path.split("/")) for path in found if ";" in path]
    return tuple(dict.fromkeys(found))


def covers(pattern: str, decoded: str) -> bool | None:
    """Whether a decoded path fits a pattern; None where that depends on who reads it."""
    fits = path_pattern(pattern).fullmatch
    answers = {fits(path) is not None for path in readings(decoded) or ()}
    return answers.pop() if len(answers) == 1 else None


def _unquoted(path: str) -> str | None:
    """Return path with one layer of encoding removed; None where servers differ about that."""
    if _AMBIGUOUS.search(path):
        return None
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return None
    if _AMBIGUOUS.search(decoded):  # encoded twice
        return None
    segments = (segment.partition(";")[0] for segment in decoded.split("/"))  # Tomcat cuts `..;x` to `..`
    return None if any(segment in (".", "..") for segment in segments) else decoded


@lru_cache(maxsize=1024)
def path_pattern(text: str) -> re.Pattern[str]:
    """Translate `*` (one segment or part of it) and `**` (any number of segments, also none), for fullmatch."""
    out = ""
    for part in re.split(r"(/\*\*|\*\*|\*)", text):
        out += {"/**": "(?:/.*)?", "**": ".*", "*": "[^/]+"}.get(part) or re.escape(part)
    return re.compile(out, re.DOTALL)
