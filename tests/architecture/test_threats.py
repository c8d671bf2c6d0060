"""The ledger of threats is complete and honest: every number stands there once, every test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from architecture.tree import ROOT, parsed

LEDGER = ROOT / "docs" / "threats.md"
LAST = 151
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)
NODE = re.compile(r"`([a-z_0-9/]+\.py)::(test_[a-z_0-9]+)`")
NOT_DONE = ("not yet: ", "no such feature yet: ")
TRIED = ("Whose authority is it?", "Names and addresses", "Credentials coming back", "Framing and resources")


def rows() -> list[tuple[int, str, str, str]]:
    """Return number, attempt, what is done, and tests, of every row."""
    return [(int(number), *rest) for number, *rest in ROW.findall(LEDGER.read_text())]


def rows_of(*sections: str) -> list[tuple[int, str, str, str]]:
    """Return the rows below these headings."""
    parts = dict(part.split("\n", 1) for part in LEDGER.read_text().split("\n## ")[1:])
    wanted = {int(number) for title in sections for number, *_ in ROW.findall(parts[title])}
    return [row for row in rows() if row[0] in wanted]


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the functions of a test file, none if there is no such file."""
    file = ROOT / "tests" / path
    if not file.is_file():
        return frozenset()
    found = ast.walk(parsed(file))
    return frozenset(node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_threat_has_its_row_and_none_has_two() -> None:
    assert [number for number, *_ in rows()] == list(range(1, LAST + 1))


def test_every_test_that_is_named_exists() -> None:
    named = [node for row in rows() for node in NODE.findall(row[3])]

    assert len(named) > LAST
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row[0]))
def test_a_row_without_a_test_says_why(row: tuple[int, str, str, str]) -> None:
    _, attempt, does, tests = row

    assert attempt.strip()
    assert NODE.search(tests) or does.startswith(NOT_DONE)


@pytest.mark.parametrize("row", rows_of(*TRIED), ids=lambda row: str(row[0]))
def test_what_the_proxy_answers_is_tried_by_a_hostile_test(row: tuple[int, str, str, str]) -> None:
    _, _, does, tests = row

    assert does.startswith("no such feature yet: ") or "`hostile/" in tests
