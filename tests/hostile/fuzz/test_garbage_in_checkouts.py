"""Whatever stands in a moat.yaml: one error that can be shown, or a run whose every wish is one visible line."""

from __future__ import annotations

from pathlib import Path

import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from moat.api.errors import UsageError
from moat.config.checkout import Checkout
from moat.config.plain_yaml import NotPlain, read_plain
from moat.config.project import Project, load_project
from moat.config.settings import NetworkSettings, Settings
from moat.config.template import TEMPLATE
from moat.runs.merge import Options, merged
from moat.runs.wishes import Circumstances, wishes
from support.fuzz import fuzzed

from hostile.fuzz.spoiling import cut_up

WORK = Path("/srv/work")
WHOLE = b"""name: mine
command: [sh, -c, "make\\ttest"]
env: {CI: yes, EMPTY: , N: 1.10}
grants: [github]
secrets: {A: env://X, B: "file://~/x", C: cmd://op read x}
mounts:
  - {source: ./a, target: /a, read_only: true}
  - {source: ~/b, target: /b}
network: {policy: permissive, allow: [a.example], rules: [allow GET b.example/**, deny *]}
ports: {web: 3000}
mcp: [{name: m, url: "https://m.example/x", grant: github, tools: [t]}]
base_image: other
runtime: process
container: {memory: 1g, cpus: 0.5, pids: 5000, ulimits: {core: {soft: 0, hard: -1}}}
"""
SCALARS = st.one_of(st.text(max_size=20), st.integers(), st.booleans(), st.none(), st.floats())
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = st.dictionaries(st.sampled_from(sorted(Project.model_fields)), VALUES, max_size=5)


def check(data: bytes) -> None:
    """Read data as a moat.yaml and ask what it wants; fail on all but an error of ours or lines that can be shown."""
    own = Settings(network=NetworkSettings("strict", ("deny *",)))
    options = Options(WORK)
    try:
        project = load_project(Checkout(WORK / "moat.yaml", data)).project
        spec = merged(options, project, own, Path("/home/someone"))
        lines = wishes(project, spec, (), Circumstances(options, own, WORK, {"process"}))
    except UsageError as failure:
        if not 0 < len(failure.problem) < 2_000 or not failure.problem.isprintable():
            raise AssertionError("an error that cannot be shown") from failure
        return
    assert all(line.isascii() and line.isprintable() and len(line) < 200_000 for line in lines)


@fuzzed(300)
@given(st.one_of(cut_up(WHOLE), st.binary(max_size=40)))
@example(WHOLE)
@example(TEMPLATE.encode())
@example(b"[" * 60_000)
@example(b"- " * 32_000)
@example(b"? " * 32_000)
@example(b"{a: " * 16_000)
@example(b'"' + b"\\x1b" * 10_000)
@example(b"a" * 65_536)
@example(b"a: " * 20_000)
@example(b"%YAML 9.9\n---\na: b")
@example(b"%TAG ! !\n---\n!a b: c")
@example(b"name: >\n  a\nenv: |\n  b")
@example(b"\xef\xbb\xbfname: x")
@example(b"name: x\n...\n...\n")
def test_a_spoiled_file_is_one_error_or_a_run(data: bytes) -> None:
    check(data)


@fuzzed(300)
@given(FIELDS)
def test_known_keys_with_any_values_are_one_error_or_a_run(fields: dict[str, object]) -> None:
    check(yaml.safe_dump(fields, allow_unicode=True).encode("utf-8", "surrogatepass"))


@fuzzed(300)
@given(st.dictionaries(st.text(min_size=1, max_size=10), st.text(max_size=30), max_size=5))
def test_text_is_read_as_it_was_written(values: dict[str, str]) -> None:
    try:
        plain = read_plain(yaml.safe_dump(values, default_style='"').encode("utf-8", "surrogatepass"))
    except NotPlain:
        assert any("\ud800" <= c <= "\udfff" for text in (*values, *values.values()) for c in text)
        return
    assert plain.value == values
