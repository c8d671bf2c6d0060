from __future__ import annotations

import json

import pytest
from moat.api import GrantOption, TokenProvider
from moat.api.errors import UsageError
from moat.cli import main
from moat.cli.plugin_info import Info, Named, infos_of, meant
from moat.plugins.discovery import Candidate
from moat.plugins.manager import Plugins

from core.plugins.plugin import a_plugin, raw_plugin


class Fruit(TokenProvider):
    name, summary = "fruit", "the fruit service"
    hosts = ("api.fruit.example.com",)
    question = "token"
    grant_options = (GrantOption("tree", "which tree", required=True),)
    refresh_every_s = 60.0


def use(monkeypatch: pytest.MonkeyPatch, *plugins: Candidate) -> None:
    monkeypatch.setattr(Plugins, "load", classmethod(lambda cls: cls(plugins)))


def orchard() -> Candidate:
    return a_plugin("orchard", "farm", moat_credential_providers=lambda: [Fruit()])


def an_info(plugin: str, distribution: str, runtime: str) -> Info:
    return Info(plugin, distribution, "1.0", "", (), (), (), (Named(runtime, ""),), ())


INFOS = [an_info("one", "moat-provider-first_one", "box"), an_info("two", "moat-core", "jail")]


@pytest.mark.parametrize("name", ["one", "box", "moat-provider-first-one", "first-one", "Moat_Provider_First_One"])
def test_a_plugin_goes_by_its_name_its_distribution_and_all_that_it_offers(name: str) -> None:
    assert meant(name, INFOS) == INFOS[:1]


@pytest.mark.parametrize(("name", "hint"), [("jial", "moat plugins info jail"), ("zzzz", "moat plugins list")])
def test_an_unknown_name_suggests_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        meant(name, INFOS)

    assert name in caught.value.problem
    assert caught.value.hint == f"run: {hint}"


def test_of_a_grant_all_is_shown_that_one_wants_to_know_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, orchard())

    assert main.run(["plugins", "info", "fruit"]) == 0

    facts = [tuple(line.strip().split(": ", 1)) for line in capsys.readouterr().out.splitlines()]
    assert {key: value.strip() for key, value in facts} == {
        "plugin": "orchard",
        "distribution": "farm 1.0",
        "state": "ok",
        "hooks": "moat_credential_providers",
        "grant": "fruit: the fruit service",
        "spent on": "api.fruit.example.com",
        "renewed": "by moat, while runs spend it",
        "obtain it": "moat grant fruit --tree …",
        "--tree": "which tree (required)",
    }


@pytest.mark.parametrize("arguments", [["plugins", "info", "farm", "--json"], ["plugins", "--json", "info", "farm"]])
def test_json_has_every_field(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, orchard())

    assert main.run(arguments) == 0

    grant = {"name": "fruit", "summary": "the fruit service", "hosts": ["api.fruit.example.com"], "renewed": True}
    options = [{"name": "tree", "help": "which tree", "required": True}]
    plugin = {"plugin": "orchard", "distribution": "farm", "version": "1.0", "problem": ""}
    kinds = {"grants": [{**grant, "options": options}], "agents": [], "runtimes": [], "secrets": []}
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"plugins": [{**plugin, "hooks": ["moat_credential_providers"], **kinds}], "conflicts": []}


@pytest.mark.parametrize("name", ["bad", "moat-provider-bad"])
def test_of_a_disabled_one_the_reason_is_shown(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, orchard(), raw_plugin("bad", ImportError("No module named 'x'")))

    assert main.run(["plugins", "info", name]) == 0

    out = capsys.readouterr().out
    assert "disabled: cannot be loaded: ImportError: No module named 'x'" in out
    assert "fruit" not in out


def test_one_that_fails_when_it_is_asked_is_disabled_and_its_hooks_are_told() -> None:
    def fail() -> list[TokenProvider]:
        raise ValueError("no")

    (info,), conflicts = infos_of(Plugins([a_plugin("bad", moat_credential_providers=fail)]))

    assert "ValueError: no" in info.problem
    assert (info.hooks, conflicts) == (("moat_credential_providers",), [])


def test_a_name_that_two_claim_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(monkeypatch, orchard(), a_plugin("evil", moat_credential_providers=lambda: [Fruit()]))

    assert main.run(["plugins", "info", "evil"]) == 0

    assert "claimed by" in capsys.readouterr().err


def test_all_kinds_of_the_installed_plugins_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("claude", "docker", "ssm"):
        assert main.run(["plugins", "info", name]) == 0

    out = " ".join(capsys.readouterr().out.split())
    for text in ("agent: claude: Claude Code", "runs on: the grant claude or anthropic", "runtime: docker: ",
                 "secrets: ssm://: "):  # fmt: skip
        assert text in out
