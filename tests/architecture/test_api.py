"""The public API: every name there, each loaded when it is used first."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import moat.api
import pytest

from architecture.tree import parsed

SOURCE = Path(moat.api.__file__)


def what_a_type_checker_sees() -> dict[str, str]:
    """Return the public names with the modules that they are from."""
    [block] = [node for node in parsed(SOURCE).body if isinstance(node, ast.If)
               and isinstance(node.test, ast.Name)]  # fmt: skip
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("name", moat.api.__all__)
def test_every_public_name_is_what_its_module_has(name: str) -> None:
    module = importlib.import_module(what_a_type_checker_sees()[name])

    assert getattr(moat.api, name) is getattr(module, name)
    assert name in dir(moat.api)


def test_the_public_names_are_those_that_a_type_checker_sees() -> None:
    assert sorted(what_a_type_checker_sees()) == sorted(moat.api.__all__)


def test_any_other_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"'moat\.api' has no attribute 'Credentials'"):
        _ = moat.api.Credentials  # type: ignore[attr-defined] # on purpose; were it unused, mypy would say so
    with pytest.raises(ImportError):
        exec("from moat.api import Credentials")  # noqa: S102 # ours


@pytest.mark.parametrize(
    "statement",
    ["from moat.api import *; SetHeader, TokenProvider", "import moat.api; moat.api.rules.SetHeader",
     "from moat.api import hookspecs, Stream; hookspecs.hookimpl"],
)  # fmt: skip
def test_the_usual_ways_to_import_work_in_a_fresh_process(statement: str) -> None:
    subprocess.run([sys.executable, "-c", statement], check=True)


def test_importing_it_loads_nothing() -> None:
    script = "import sys, moat.api.errors; print([name for name in sys.modules if name.startswith('moat')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['moat', 'moat.api', 'moat.api.errors']"
