"""The steps one by one, each in a process of its own. Whole and in real sandboxes: tests/integration/test_exec.py."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from moat.runtimes import join
from moat.runtimes.seccomp import bpf_filter

SOURCE = Path(join.__file__)


def in_a_process(script: str, *arguments: str, given: tuple[int, ...] = ()) -> str:
    """Run a script that may use the program as a module, and return what it printed, complaints too."""
    words = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append(sys.argv[1]); import join, os\n{script}"]
    done = subprocess.run(
        [*words, str(SOURCE.parent), *arguments], capture_output=True, text=True, check=False, pass_fds=given
    )
    return done.stdout + done.stderr


def test_once_caged_a_process_and_what_it_becomes_have_no_right_and_a_filter() -> None:
    rules = os.memfd_create("filter")
    os.write(rules, bpf_filter(platform.machine()))
    script = """
print(bool(join.freedom()))
join.cage(os.pread(int(sys.argv[2]), 1 << 20, 0))
print(join.freedom() == "", flush=True)
os.execv("/bin/grep", ["grep", "-E", "^(Cap...|NoNewPrivs|Seccomp):", "/proc/self/status"])
"""
    try:
        before, after, *told = in_a_process(script, str(rules), given=(rules,)).splitlines()
    finally:
        os.close(rules)

    assert (before, after) == ("True", "True")
    held = dict(line.split(":\t") for line in told)
    assert {held.pop("NoNewPrivs"), held.pop("Seccomp")} == {"1", "2"}
    assert len(held) == 5
    assert set(held.values()) == {"0" * 16}


@pytest.mark.parametrize("missing", ["capset", "prctl"])
def test_a_cage_with_a_gap_is_none(missing: str) -> None:
    script = f"""
class Broken:
    def __getattr__(self, name):
        return (lambda *words: 0) if name == {missing!r} else getattr(whole, name)
whole, join.libc = join.libc, Broken()
try:
    join.cage(b"")
except OSError as failure:
    print("refused:", failure.strerror)
"""
    assert in_a_process(script).startswith("refused: ")


def test_what_shares_namespaces_with_us_is_no_sandbox() -> None:
    script = "join.enter(os.pidfd_open(os.getpid()), join.differing(os.getpid()))"

    assert "it is no sandbox: it has namespaces of ours" in in_a_process(script)


def test_nothing_is_imported_but_at_the_top_where_names_are_still_ours() -> None:
    tree = ast.parse(SOURCE.read_text())
    deep = [node for top in tree.body if isinstance(top, ast.FunctionDef) for node in ast.walk(top)]

    assert not [node for node in deep if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert names <= set(sys.stdlib_module_names)
