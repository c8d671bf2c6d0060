"""Files fit one idea, functions fit a screen."""

from __future__ import annotations

from architecture.tree import files_of_tests, functions, relative, sources

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    long = {relative(path): count for path in (*sources(), *files_of_tests())
            if (count := len(path.read_text().splitlines())) > MOST_LINES_OF_A_FILE}  # fmt: skip

    assert long == {}


def test_every_function_fits_a_screen() -> None:
    long = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path in (*sources(), *files_of_tests())
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    ]

    assert long == []
