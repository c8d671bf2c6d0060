"""Request paths as policies and rules read them: decoded once, and only where every server would decode them alike.

Patterns, over the decoded path: `*` is one segment or a part of one, never nothing; `**` is any number of segments.

    /repos/*/issues    /repos/x/issues           /admin/**    /admin, /admin/, /admin/x/y; not /administrator
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

_AMBIGUOUS = re.compile(r"\\|//|%(?:2f|5c|2e|00)|[\x00-\x1f\x7f]", re.IGNORECASE)


def decoded_path(path: str) -> str | None:
    """Return path with its percent-encoding removed, or None where servers may read it in more than one way."""
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
