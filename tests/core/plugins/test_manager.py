from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from moat.api import (
    Contribution,
    Credential,
    Endpoint,
    EndpointProvider,
    ExchangeRecord,
    Host,
    RunInfo,
    RunSpec,
    SecretSource,
    hookimpl,
)
from moat.api.endpoints import Question, Reply
from moat.api.errors import PluginError, UsageError
from moat.plugins.discovery import Candidate
from moat.plugins.manager import Plugins, how_to_have
from moat.testing import FakeHost

from core.plugins.plugin import a_plugin, a_provider, raw_plugin
from core.testing.test_agents import Pal

SPEC = RunSpec(Path("/w"), ("true",))
RUN = RunInfo("run_000000000000", "n", "bubblewrap", "strict", (), "/w", ("true",), "2030-01-01T00:00:00+00:00")


def boom(*_: object) -> None:
    raise ValueError("boom")


def offering(name: str, distribution: str = "") -> Candidate:
    return a_plugin(name, distribution, moat_credential_providers=lambda: [a_provider(name)])


def test_the_installed_plugins_offer_the_four_providers() -> None:
    names = {provider.name for provider in Plugins.load().credential_providers()}

    assert {"anthropic", "aws", "github", "openai"} <= names


def test_providers_of_all_plugins_are_joined_by_name_whatever_the_order() -> None:
    one, two = offering("b"), offering("a")

    for order in ([one, two], [two, one]):
        assert [provider.name for provider in Plugins(order).credential_providers()] == ["a", "b"]


def test_a_name_claimed_twice_is_an_error_that_names_both_distributions() -> None:
    plugins = Plugins([offering("github", "moat-provider-github"), offering("github", "evil-helper")])

    with pytest.raises(PluginError) as caught:
        plugins.credential_providers()

    assert "evil-helper" in caught.value.problem
    assert "moat-provider-github" in caught.value.problem


def test_agents_of_all_plugins_are_joined_by_name_and_none_is_called_like_another() -> None:
    class Other(Pal):
        name = "a"

    one, two = (
        a_plugin("x", moat_agent_providers=lambda: [Pal()]),
        a_plugin("y", moat_agent_providers=lambda: [Other()]),
    )

    assert [offer.value.name for offer in Plugins([one, two]).agent_offers()] == ["a", "pal"]
    with pytest.raises(PluginError, match="'pal' is claimed by"):
        Plugins([one, a_plugin("z", moat_agent_providers=lambda: [Pal()])]).agent_offers()


def an_endpoint_provider(called: str) -> EndpointProvider:
    class Provider(EndpointProvider):
        name, summary = called, "endpoints"

        def endpoints(self, credential: Credential) -> list[Endpoint]:
            del credential
            return []

    return Provider()


def test_an_endpoint_provider_is_found_by_the_name_of_its_grant() -> None:
    plugins = Plugins([a_plugin("kube", moat_endpoint_providers=lambda: [an_endpoint_provider("kube")])])

    assert getattr(plugins.endpoint_provider("kube"), "name", None) == "kube"
    assert plugins.endpoint_provider("github") is None


def test_endpoints_of_one_grant_by_two_plugins_are_an_error() -> None:
    both = [a_plugin(name, moat_endpoint_providers=lambda: [an_endpoint_provider("kube")]) for name in ("a", "b")]

    with pytest.raises(PluginError, match="moat-provider-a and by moat-provider-b"):
        Plugins(both).endpoint_provider("kube")


def test_a_plugin_whose_endpoint_hook_fails_is_disabled_and_reported() -> None:
    plugins = Plugins([a_plugin("kube", moat_endpoint_providers=boom)])

    assert plugins.endpoint_provider("kube") is None
    assert "moat_endpoint_providers" in str(plugins.problems[0])


def test_an_unknown_provider_lists_what_is_installed_and_how_to_get_it() -> None:
    with pytest.raises(UsageError, match="there are: a, b") as caught:
        Plugins([offering("a"), offering("b")]).credential_provider("gitlab")

    assert caught.value.hint == "run: pip install moat-provider-gitlab"


def test_a_provider_whose_name_is_mistyped_is_named_and_nothing_is_proposed_to_install() -> None:
    plugins = Plugins([offering("github"), offering("claude")])

    for typed, meant in (("githb", "github"), ("cluade", "claude")):
        with pytest.raises(UsageError) as caught:
            plugins.credential_provider(typed)
        assert caught.value.hint == f"did you mean {meant}?"
    assert how_to_have("gitlab", ["github"]) == "run: pip install moat-provider-gitlab"
    assert how_to_have("no name", ["github"]) == "run: moat plugins"


BROKEN = {
    "cannot be imported": raw_plugin("bad", ImportError("No module named 'x'")),
    "misspelt hook": raw_plugin("bad", SimpleNamespace(moat_credental_providers=hookimpl(lambda: []))),
    "unmarked hook": raw_plugin("bad", SimpleNamespace(moat_credential_providers=lambda: [])),
    "unknown argument": a_plugin("bad", moat_run_started=lambda run, mood: None),
    "no hook at all": raw_plugin("bad", SimpleNamespace()),
    "hook raises": a_plugin("bad", moat_credential_providers=boom),
    "no list": a_plugin("bad", moat_credential_providers=lambda: None),
    "no provider": a_plugin("bad", moat_credential_providers=lambda: ["github"]),
    "a class, no instance": a_plugin("bad", moat_credential_providers=lambda: [type(a_provider("bad"))]),
    "an impossible name": a_plugin("bad", moat_credential_providers=lambda: [a_provider("../bad")]),
    "a reserved name": a_plugin("bad", moat_credential_providers=lambda: [a_provider("list")]),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_disabled_and_reported_and_the_others_work(broken: Candidate) -> None:
    plugins = Plugins([broken, offering("good")])

    assert [provider.name for provider in plugins.credential_providers()] == ["good"]
    assert [problem.plugin for problem in plugins.problems] == [broken]
    assert str(plugins.problems[0]).startswith("moat-provider-bad (bad): ")


def test_using_a_broken_plugin_is_an_error_that_says_why() -> None:
    plugins = Plugins([raw_plugin("gitlab", ImportError("No module named 'x'"))])

    with pytest.raises(PluginError, match="No module named 'x'") as caught:
        plugins.credential_provider("gitlab")

    assert caught.value.hint == "run: moat plugins"


def test_contributions_come_with_their_distribution() -> None:
    given = Contribution()
    plugins = Plugins(
        [a_plugin("a", moat_configure_run=lambda spec: given), a_plugin("b", moat_configure_run=lambda spec: None)]
    )

    assert plugins.configure_run(SPEC) == [("moat-provider-a", given)]


@pytest.mark.parametrize("hook", [boom, lambda: "no contribution"], ids=["raises", "answers something else"])
def test_a_plugin_that_fails_to_configure_refuses_the_run(hook: object) -> None:
    assert callable(hook)

    with pytest.raises(PluginError, match="moat-provider-a"):
        Plugins([a_plugin("a", moat_configure_run=hook)]).configure_run(SPEC)


def test_observers_fail_without_disturbing_anybody() -> None:
    seen: list[str] = []
    exchange = ExchangeRecord(RUN.run_id, "", "connect", "GET", "https", "a", 443, "/", 200, "forwarded")
    plugins = Plugins(
        [
            a_plugin("a", moat_run_started=boom, moat_run_stopped=boom, moat_exchange_done=boom),
            a_plugin(
                "b",
                moat_run_started=lambda run: seen.append(run.run_id),
                moat_run_stopped=lambda run, exit_code: {"code": str(exit_code)},
                moat_exchange_done=lambda run_id, exchange: seen.append(exchange.host),
            ),
        ]
    )

    plugins.run_started(RUN)
    plugins.exchange_done(RUN.run_id, exchange)

    assert plugins.run_stopped(RUN, 3) == {"moat-provider-b": {"code": "3"}}
    assert seen == [RUN.run_id, "a"]


def test_commands_of_plugins_are_added() -> None:
    cli = click.Group()

    Plugins(
        [a_plugin("a", moat_register_commands=lambda cli: cli.add_command(click.Command("hello")))]
    ).register_commands(cli)

    assert list(cli.commands) == ["hello"]


def test_a_command_that_exists_already_is_an_error() -> None:
    cli = click.Group(commands={"run": click.Command("run")})
    plugins = Plugins([a_plugin("a", moat_register_commands=lambda cli: cli.add_command(click.Command("run")))])

    with pytest.raises(PluginError, match="moat-core and by moat-provider-a"):
        plugins.register_commands(cli)


def test_a_plugin_that_fails_to_register_commands_is_disabled_and_leaves_none() -> None:
    def half(cli: click.Group) -> None:
        cli.add_command(click.Command("half"))
        raise ValueError("boom")

    cli = click.Group()
    plugins = Plugins([a_plugin("a", moat_register_commands=half)])

    plugins.register_commands(cli)

    assert cli.commands == {}
    assert [problem.text for problem in plugins.problems] == ["moat_register_commands failed: ValueError: boom"]


def test_what_is_no_runtime_is_refused() -> None:
    plugins = Plugins([a_plugin("a", moat_runtimes=lambda: [a_provider("docker")])])

    assert plugins.runtimes() == []
    assert "not a Runtime" in plugins.problems[0].text


def speaking(say: object) -> Plugins:
    class Speaker(EndpointProvider):
        name, summary = "kube", "answers"

        def endpoints(self, credential: Credential) -> list[Endpoint]:
            return []

        async def respond(self, question: Question, credential: Credential) -> Reply:
            if isinstance(say, Exception):
                raise say
            return say  # type: ignore[return-value] # a plugin may return anything

    return Plugins([a_plugin("kube", moat_endpoint_providers=lambda: [Speaker()])])


async def test_a_provider_answers_questions_and_what_it_does_wrong_is_told() -> None:
    asked, credential = Question("run_1", "words", "GET", "/"), Credential("kube", "s3cr3t", "test")

    assert (await speaking(Reply(201)).respond(asked, credential)).status == 201
    for say, word in ((RuntimeError("a bug"), "a bug"), (None, "NoneType")):
        with pytest.raises(PluginError, match=word):
            await speaking(say).respond(asked, credential)
    with pytest.raises(PluginError, match="no plugin"):
        await Plugins([]).respond(asked, credential)


class Source(SecretSource):
    summary = "secrets"

    def __init__(self, name: str, value: object = "s3cr3t") -> None:
        self.name = name  # type: ignore[misc] # one class stands for several sources
        self.value = value

    def describe(self, reference: str) -> str:
        if not reference:
            boom()
        return f"look up {reference}"

    async def fetch(self, reference: str, host: Host) -> str:
        del host
        return f"{self.value}{reference}" if isinstance(self.value, str) else self.value  # type: ignore[return-value] # on purpose


def sourcing(name: str, distribution: str = "", value: object = "s3cr3t") -> Candidate:
    return a_plugin(name, distribution, moat_secret_sources=lambda: [Source(name, value)])


async def test_a_secret_is_described_and_fetched_by_the_source_of_its_scheme() -> None:
    plugins = Plugins([sourcing("one"), sourcing("two", value=3)])

    assert plugins.describe_secret("one", "/x") == "look up /x"
    assert await plugins.fetch_secret("one", "/x", FakeHost()) == "s3cr3t/x"
    with pytest.raises(PluginError, match="one:// cannot be read: ValueError: boom"):
        plugins.describe_secret("one", "")
    with pytest.raises(PluginError, match="two:// gave int"):
        await plugins.fetch_secret("two", "/x", FakeHost())
    with pytest.raises(UsageError, match="nothing that is installed fetches three://"):
        plugins.describe_secret("three", "/x")


@pytest.mark.parametrize("name", ["op", "cmd", "env", "file"])
def test_no_source_takes_a_scheme_of_moats_own(name: str) -> None:
    plugins = Plugins([sourcing(name)])

    assert plugins.secret_source_offers() == []
    assert f"name is {name!r}, which cannot name it" in plugins.problems[0].text


def test_a_scheme_claimed_twice_is_an_error() -> None:
    with pytest.raises(PluginError, match="evil-helper"):
        Plugins([sourcing("ssm", "moat-provider-aws"), sourcing("ssm", "evil-helper")]).describe_secret("ssm", "/x")


def test_the_hooks_of_a_plugin_are_known_unless_it_never_loaded() -> None:
    good = a_plugin("good", moat_runtimes=lambda: [], moat_credential_providers=lambda: [])
    bad = raw_plugin("bad", ImportError("no"))
    plugins = Plugins([good, bad])

    assert plugins.hooks_of(good) == ("moat_credential_providers", "moat_runtimes")
    assert plugins.hooks_of(bad) == ()
