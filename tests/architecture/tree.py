"""The project's own files, for the tests that look at them."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "moat-core" / "src" / "moat"
PROVIDERS = tuple(sorted(ROOT.glob("moat-provider-*/src/*")))


def sources() -> list[Path]:
    """Return every Python file of every distribution."""
    return sorted(path for root in (CORE, *PROVIDERS) for path in root.rglob("*.py"))


def files_of_tests() -> list[Path]:
    """Return every Python file of the tests."""
    return sorted((ROOT / "tests").rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree.

    Without the collector: what it ends may be told with a traceback, which is parsed too, and CPython before 3.11.5
    takes a parse within a parse for a fault (python/cpython#106905).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        if was_enabled:
            gc.enable()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a file."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def relative(path: Path) -> str:
    """Return a path as people write it."""
    return str(path.relative_to(ROOT))
