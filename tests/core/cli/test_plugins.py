from __future__ import annotations

import json

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
