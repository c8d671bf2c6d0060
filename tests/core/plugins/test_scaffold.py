from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import UsageError
from moat.plugins.manager import Plugins
from moat.plugins.scaffold import begin, files
from moat.testing import ProviderContract

from core.plugins.plugin import a_plugin, a_provider, raw_plugin

NOTHING = Plugins([])


@pytest.mark.parametrize("name", ["brave", "brave-search", "snake_case", "3d", "token", "a" * 63])
def test_what_is_written_passes_the_contract_as_it_is(name: str) -> None:
    written = files(name)
    module = next(path for path in written if path.endswith("__init__.py")).split("/")[1]
    names: dict[str, Any] = {}
    exec(written[f"src/{module}/__init__.py"], names)  # noqa: S102 # our own text, run as a user would

    class Contract(ProviderContract):
        provider = names["Provider"]()
        secret = "s3cr3t-token"

    assert Contract.provider.name == name
    (variable,) = Contract.provider.container(Contract().accepted()).env
    assert variable.isidentifier()
    for promise in (each for each in dir(Contract) if each.startswith("test_")):
        getattr(Contract(), promise)()
    project = tomllib.loads(written["pyproject.toml"])["project"]
    assert project["name"] == f"moat-provider-{name}"
    assert project["entry-points"]["moat"] == {name: module}


def test_what_is_written_is_clean(tmp_path: Path) -> None:
    folder = begin("brave-search", tmp_path / "made", NOTHING)
    rules = "E,F,W,I,UP,B,SIM,RUF,ANN,D"

    for words in (
        ("ruff", "check", "--isolated", "--no-cache", "--select", rules, "--ignore", "D203,D213", "."),
        ("ruff", "format", "--isolated", "--no-cache", "--check", "."),
        ("mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}", "src", "tests"),
    ):
        done = subprocess.run([sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_folder_is_called_like_the_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    folder = begin("brave", None, NOTHING)

    written = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert folder == Path("moat-provider-brave")
    assert written == {f"moat-provider-brave/{path}": text for path, text in files("brave").items()}


@pytest.mark.parametrize(
    ("name", "problem", "hint"),
    [
        ("Brave", "cannot name a provider", "lower-case"),
        ("brave-", "cannot name a provider", "last"),
        ("../brave", "cannot name a provider", "lower-case"),
        ("", "cannot name a provider", "lower-case"),
        ("list", "is a word of moat grant", "another name"),
        ("moat-provider-brave", "the distribution", "run: moat plugins new brave"),
        ("fruit", "taken by farm", "run: moat plugins info fruit"),
        ("git-hub", "taken by moat-provider-git_hub", "run: moat plugins info git-hub"),
    ],
)
def test_a_name_that_no_provider_can_have_is_refused(name: str, problem: str, hint: str, tmp_path: Path) -> None:
    fruit = a_plugin("orchard", "farm", moat_credential_providers=lambda: [a_provider("fruit")])
    broken = raw_plugin("other", ImportError("no"), "moat-provider-git_hub")

    with pytest.raises(UsageError) as caught:
        begin(name, tmp_path / "made", Plugins([fruit, broken]))

    assert problem in caught.value.problem
    assert hint in caught.value.hint
    assert not (tmp_path / "made").exists()


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(UsageError, match="not empty; nothing was written"):
        begin("brave", tmp_path, NOTHING)
    with pytest.raises(UsageError, match="is no folder"):
        begin("brave", tmp_path / "file", NOTHING)

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "mine")]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    begin("brave", tmp_path, NOTHING)

    assert (tmp_path / "pyproject.toml").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(UsageError, match="cannot be written: Not a directory"):
        begin("brave", tmp_path / "file" / "below", NOTHING)
