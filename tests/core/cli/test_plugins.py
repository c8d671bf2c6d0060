from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from moat.cli import main
from moat.plugins.discovery import Candidate
from moat.plugins.manager import Plugins

from core.plugins.plugin import a_plugin, a_provider, raw_plugin


def use(monkeypatch: pytest.MonkeyPatch, *plugins: Candidate) -> None:
    monkeypatch.setattr(Plugins, "load", classmethod(lambda cls: cls(plugins)))


def offering(name: str, distribution: str = "") -> Candidate:
    return a_plugin(name, distribution, moat_credential_providers=lambda: [a_provider(name)])


def test_what_is_installed_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["plugins"]) == 0

    out = capsys.readouterr().out
    for text in (
        "DISTRIBUTION",
        "AGENTS",
        "claude",
        "moat-core",
        "moat-provider-github",
        "github",
        "anthropic",
        "openai",
        "aws",
        "ssm",
    ):
        assert text in out


def test_a_broken_plugin_is_listed_with_its_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, offering("good"), raw_plugin("bad", ImportError("No module named 'x'")))

    assert main.run(["plugins"]) == 0

    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["good"].endswith("ok")
    assert "No module named 'x'" in lines["bad"]


def test_json_has_every_field(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(monkeypatch, offering("good"))

    main.run(["plugins", "--json"])

    entry = {"plugin": "good", "distribution": "moat-provider-good", "version": "1.0", "grants": ["good"]}
    assert json.loads(capsys.readouterr().out) == {
        "plugins": [{**entry, "agents": [], "runtimes": [], "secrets": [], "problem": ""}],
        "conflicts": [],
    }


def test_two_that_claim_one_name_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(monkeypatch, offering("github"), offering("github", "evil-helper"))

    assert main.run(["plugins"]) == 0

    out, err = capsys.readouterr()
    assert "evil-helper" in out
    assert "claimed by" in err


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--json", "list"]])
def test_list_is_what_no_command_is(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, offering("good"))
    assert main.run(["plugins", *(word for word in arguments if word == "--json")]) == 0
    without = capsys.readouterr().out

    assert main.run(["plugins", *arguments]) == 0

    assert capsys.readouterr().out == without


def test_new_writes_a_provider_and_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "with space"

    assert main.run(["plugins", "new", "brave", str(folder)]) == 0

    out, err = capsys.readouterr()
    install, check, grant = out.splitlines()
    assert (shlex.split(install)[-2:], shlex.split(check)) == (
        ["-e", f"{folder}[test]"],
        [sys.executable, "-m", "pytest", str(folder)],
    )
    assert sys.executable in shlex.split(install)
    assert grant == "moat grant brave"
    assert str(folder / "src" / "moat_provider_brave" / "__init__.py") in err
    assert (folder / "pyproject.toml").exists()
