"""Which source this installation was built from, as far as its installer wrote that down (PEP 610)."""

from __future__ import annotations

import functools
import json
from importlib.metadata import PackageNotFoundError, distribution

NAME = "moat-core"


@functools.cache
def commit() -> str:
    """Return the commit that moat was installed from, "" for a release and for a working tree."""
    try:
        return commit_in(distribution(NAME).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return ""


def commit_in(text: str) -> str:
    """Return the commit that a `direct_url.json` names, or ""."""
    try:
        details = json.loads(text)["vcs_info"]
        found = details["commit_id"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
