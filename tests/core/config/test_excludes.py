from __future__ import annotations

import pytest
from moat.config.excludes import is_hidden, parse_exclude


@pytest.mark.parametrize(
    ("text", "hidden", "shown"),
    [
        ("node_modules", "node_modules a/b/node_modules", "node_modules2 a/node_modules/b"),
        ("*.key", "a.key a/b.key", "a.keys key"),
        ("/dist", "dist", "a/dist"),
        ("config/*.key", "config/a.key", "a.key a/config/a.key config/a/b.key"),
        ("**/cache/*.db", "cache/a.db a/b/cache/c.db", "cache.db cache/a/b.db"),
        ("a/**/z", "a/z a/b/z a/b/c/z", "z b/a/z a/b"),
        ("id_[re]sa", "id_rsa id_esa", "id_dsa id_[re]sa"),
        (".env.?", ".env.1", ".env .env.12"),
        ("**/a/**/b/**/c", "a/b/c x/a/y/b/z/c a/a/b/b/c", "a/c/b a/b"),
    ],
)
def test_a_pattern_fits_as_gitignore_has_it(text: str, hidden: str, shown: str) -> None:
    exclude = parse_exclude(text)

    assert [path for path in hidden.split() if not exclude.fits(path.split("/"), is_folder=False)] == []
    assert [path for path in shown.split() if exclude.fits(path.split("/"), is_folder=False)] == []


@pytest.mark.parametrize("text", ["build/", "/build/", "build/**", "/build/**"])
def test_a_pattern_that_ends_so_is_for_folders(text: str) -> None:
    exclude = parse_exclude(text)

    assert exclude.fits(["build"], is_folder=True)
    assert not exclude.fits(["build"], is_folder=False)


def test_what_lies_in_a_hidden_folder_is_hidden() -> None:
    excludes = [parse_exclude("*.key"), parse_exclude("secrets/")]

    assert is_hidden(excludes, ("a", "secrets", "b"), is_folder=False)
    assert not is_hidden(excludes, ("a", "secrets"), is_folder=False)
    assert not is_hidden(excludes, (), is_folder=True)


@pytest.mark.parametrize("text", ["!a", "a\\ b", "/", "", "**", "/**", "a//b", "../a", "./a", "a/..", "**/**"])
def test_what_would_not_do_what_it_says_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"which mean nothing here|names no path"):
        parse_exclude(text)


def test_no_pattern_takes_long() -> None:
    exclude = parse_exclude("/".join(["**", "a*a*a*b"] * 40))

    assert not exclude.fits(["a" * 200] * 400, is_folder=False)
