"""Nothing is ignored without a reason, and nothing is left half done."""

from __future__ import annotations

import re

from architecture.tree import ROOT, files_of_tests, relative, sources

IGNORE = re.compile(r"#\s*(noqa|type:\s*ignore)(.*)$")
WITH_A_REASON = re.compile(r"#\s*(noqa:\s*[A-Z0-9, ]+|type:\s*ignore\[[a-z-, ]+\])\s*(#|:|-)\s*\S.{3,}")


def test_every_ignore_names_its_rule_and_reason() -> None:
    bare = [
        f"{relative(path)}:{number}"
        for path in (*sources(), *files_of_tests())
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := IGNORE.search(line)) and WITH_A_REASON.search(line) is None and "IGNORE" not in line and found
    ]

    assert bare == []


def test_no_file_mentions_addresses_of_package_registries_or_locks_them() -> None:
    tracked = [path for path in ROOT.rglob("*lock*") if path.suffix in {".lock", ".json"} and ".venv" not in path.parts]
    constraints = (ROOT / "constraints.txt").read_text()

    assert [path for path in tracked if "node_modules" not in path.parts and ".git" not in path.parts] == []
    assert "://" not in constraints
