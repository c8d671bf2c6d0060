"""What may be depended on, and what only looks like it."""

from __future__ import annotations

import pytest
from moat.config.dependencies import checked_dependencies, parse_dependency

HOSTILE = [
    "", " ", "node@22;id", "node@$(id)", "node@22 ", "node@latest", "node@-1", "python@3.12.1.1", "rust@stable",
    "pip:", "pip:-r/etc/passwd", "pip:--index-url=https://evil.example", "pip:ruff @ https://evil.example/x.whl",
    "pip:https://evil.example/x.whl", "pip:./here", "pip:mypy==", "pip:ruff==1;id", "pip:a b", "pip:ruff\n--pre",
    "pip:ruff==0.6\n", "npm:", "npm:-g", "npm:../up", "npm:a@file:../x", "npm:a@https://evil.example", "npm:a/b",
    "npm:git+ssh://x", "npm:a@npm:evil", "npm:`id`", "apt:", "apt:-y", "apt:./x.deb", "apt:vim-", "apt:a=$(id)",
    "apt:a/bookworm", "apt:A", "gem:rails", "apt:ä", "nodé@22", "apt:'", 'npm:"', "pip:x'y",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind", "package"),
    [
        ("node@22", "node", "22"),
        ("python@3.12", "python", "3.12"),
        ("go@1.23.4", "go", "1.23.4"),
        ("rust", "rust", ""),
        ("apt:ripgrep", "apt", "ripgrep"),
        ("apt:g++", "apt", "g++"),
        ("apt:libc6=2:2.36-9+deb12u1~x", "apt", "libc6=2:2.36-9+deb12u1~x"),
        ("pip:ruff==0.6", "pip", "ruff==0.6"),
        ("pip:httpx[http2,cli]>=0.27,<1", "pip", "httpx[http2,cli]>=0.27,<1"),
        ("npm:typescript@5", "npm", "typescript@5"),
        ("npm:@scope/name@^1.2.0-rc.1", "npm", "@scope/name@^1.2.0-rc.1"),
        ("npm:@scope/name", "npm", "@scope/name"),
    ],
)
def test_a_name_and_a_version_are_taken_as_they_are_written(text: str, kind: str, package: str) -> None:
    found = parse_dependency(text)

    assert (found.kind, found.package, str(found)) == (kind, package, text)


@pytest.mark.parametrize("text", HOSTILE)
def test_anything_but_a_name_and_a_version_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refusal:
        parse_dependency(text)

    assert len(text) < 6 or text not in str(refusal.value)


def test_a_language_that_is_nearly_one_is_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean python"):
        parse_dependency("pyton@3.12")
    with pytest.raises(ValueError, match="go, node, python, rust"):
        parse_dependency("cobol")


def test_each_counts_once_and_their_order_not_at_all() -> None:
    some = ["pip:b", "node@22", "pip:a==1", "pip:b", "apt:xz"]

    assert checked_dependencies(some) == checked_dependencies(reversed(some))
    assert [str(each) for each in checked_dependencies(some)] == ["apt:xz", "node@22", "pip:a==1", "pip:b"]


@pytest.mark.parametrize("pair", [("node@20", "node@22"), ("pip:a==1", "pip:a==2"), ("npm:a", "npm:a@1")])
def test_two_versions_of_one_thing_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="two versions of one thing"):
        checked_dependencies(pair)
