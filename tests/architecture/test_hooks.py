"""Every hook and its signature stand in the documentation, and nothing there is out of date."""

from __future__ import annotations

import ast
import re

from architecture.tree import CORE, ROOT, parsed

PAGE = ROOT / "docs" / "plugins" / "hooks.md"


def _signatures() -> set[str]:
    tree = parsed(CORE / "api" / "hookspecs.py")
    return {
        f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.returns is not None
    }


def test_every_hook_is_documented_with_its_signature() -> None:
    page = PAGE.read_text()

    assert sorted(signature for signature in _signatures() if f"`{signature}`" not in page) == []


def test_no_hook_is_documented_that_does_not_exist() -> None:
    documented = set(re.findall(r"^### `([^`]+)`$", PAGE.read_text(), re.MULTILINE))

    assert documented == _signatures()
