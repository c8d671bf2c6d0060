"""Writes docs/reference/openapi.json from the values that cross the management API. `--check` compares.

Run after changing moat/daemon/protocol.py: .venv/bin/python scripts/openapi.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import moat
from moat.daemon.openapi import document

FILE = Path(__file__).parents[1] / "docs" / "reference" / "openapi.json"


def text() -> str:
    """Return the whole document."""
    return json.dumps(document(moat.__version__), indent=2) + "\n"


def main() -> int:
    """Write the document, or compare it; return the exit code."""
    if "--check" in sys.argv:
        return int(not FILE.exists() or FILE.read_text() != text())
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
