from __future__ import annotations

import base64
from pathlib import Path

import pytest
from moat.api.container import ContainerSetup
from moat.api.credentials import Credential, CredentialProvider
from moat.api.endpoints import (
    Endpoint,
    EndpointProvider,
    Forward,
    OnHost,
    ProxyPath,
    Question,
    Reply,
    Respond,
    Stream,
    Tcp,
    UnixPath,
    Upstream,
)
from moat.api.errors import GrantFailed, GrantMissing, PlanConflict, PluginError, StoreLocked, UsageError
from moat.api.rules import Match, Rewriter, RewriteResponse, SetHeader
from moat.api.runs import Contribution, RunSpec
from moat.daemon.extras import AwsConfig, Extras, GivenCredential, HostPort, McpServer
from moat.daemon.grants import Grants
from moat.log import Redactor
from moat.redaction import REDACTED

from core.daemon.making import SECRET, Fruit, Orchard, Vault


def a_spec(*grants: str) -> RunSpec:
    return RunSpec(workspace=Path("/w"), command=("true",), grants=grants)


def test_a_grant_becomes_rules_placeholders_and_hosts() -> None:
    resolved = Grants(Vault("apple", "pear"), Orchard(), Redactor()).resolve(a_spec("pear", "apple", "pear"))

    assert [rule.grant for rule in resolved.rules] == ["pear", "apple"]
    assert resolved.hosts == ("api.apple.test", "api.pear.test")
    assert resolved.setup.env == {"APPLE_TOKEN": "moat-placeholder", "PEAR_TOKEN": "moat-placeholder"}
    assert SECRET not in repr(resolved)


def test_all_missing_grants_are_named_with_their_lines() -> None:
    with pytest.raises(GrantMissing) as caught:
        Grants(Vault("pear"), Orchard(), Redactor()).resolve(a_spec("apple", "pear", "plum"))

    assert caught.value.problem == "missing grants: apple, plum"
    assert caught.value.hint.splitlines() == ["run: moat grant apple", "run: moat grant plum"]


class Stall(EndpointProvider):
    name, summary = "apple", "endpoints for a test"

    def __init__(self, *prefixes: str) -> None:
        self.prefixes = prefixes

    def endpoints(self, credential: Credential) -> list[Endpoint]:
        rule = SetHeader(Match("a.test"), "X-Key", f"s3cr3t-made-of-{credential.provider}")
        how = Forward(Upstream("a.test", client_certificate="s3cr3t-certificate"), (rule,))
        return [Endpoint(ProxyPath(prefix), how, credential.provider) for prefix in self.prefixes]


def test_a_grant_brings_its_endpoints_and_the_log_learns_their_secrets() -> None:
    plugins, redactor = Orchard(), Redactor()
    plugins.endpoints = {"apple": Stall("/_moat/a/", "/_moat/b/")}
    grants = Grants(Vault("apple", "pear"), plugins, redactor)

    places = [each.where for each in grants.resolve(a_spec("apple")).endpoints]
    assert places == [ProxyPath("/_moat/a/"), ProxyPath("/_moat/b/")]
    assert grants.resolve(a_spec("pear")).endpoints == ()
    assert redactor.clean("s3cr3t-made-of-apple s3cr3t-certificate") == f"{REDACTED} {REDACTED}"


def test_two_endpoints_at_one_path_refuse_the_run() -> None:
    plugins = Orchard()
    plugins.endpoints = {"apple": Stall("/_moat/a/"), "pear": Stall("/_moat/a/")}
    with pytest.raises(PlanConflict, match="apple and pear both want /_moat/a/"):
        Grants(Vault("apple", "pear"), plugins, Redactor()).resolve(a_spec("apple", "pear"))

    plugins.endpoints = {"apple": Stall("/_moat/a/", "/_moat/a/")}
    with pytest.raises(PluginError, match="one place"):
        Grants(Vault("apple"), plugins, Redactor()).resolve(a_spec("apple"))


@pytest.mark.parametrize("name", ["kiwi", "../apple", "", "Apple"])
def test_an_unknown_grant_is_a_usage_error_even_when_others_are_missing(name: str) -> None:
    with pytest.raises(UsageError):
        Grants(Vault(), Orchard(), Redactor()).resolve(a_spec("apple", name))


def test_without_grants_the_store_is_not_asked() -> None:
    class Locked(Vault):
        def load(self, name: str) -> None:  # type: ignore[override] # it never returns
            raise StoreLocked("the keyring is locked")

    grants = Grants(Locked(), Orchard(), Redactor())  # type: ignore[arg-type] # as above

    assert grants.resolve(a_spec()).rules == ()
    with pytest.raises(StoreLocked):
        grants.resolve(a_spec("apple"))


def test_the_log_learns_a_secret_and_what_is_made_of_it() -> None:
    encoded = base64.b64encode(f"x:{SECRET}".encode()).decode()
    rule = SetHeader(Match("github.test"), "Authorization", f"Basic {encoded}")
    redactor = Redactor()

    Grants(Vault("apple"), Orchard(("plugin", Contribution((rule,)))), redactor).resolve(a_spec("apple"))

    assert redactor.clean(f"{SECRET} and {encoded}") == f"{REDACTED} and {REDACTED}"


def test_what_plugins_contribute_is_joined() -> None:
    rule = SetHeader(Match("extra.test:8443"), "X-Extra", "s3cr3t-extra")
    contribution = Contribution((rule,), ContainerSetup(env={"EXTRA": "1"}))

    resolved = Grants(Vault("apple"), Orchard(("plugin", contribution)), Redactor()).resolve(a_spec("apple"))

    assert resolved.hosts == ("api.apple.test", "extra.test:8443")
    assert resolved.setup.env == {"APPLE_TOKEN": "moat-placeholder", "EXTRA": "1"}


def test_contributors_that_disagree_are_both_named() -> None:
    contribution = Contribution(setup=ContainerSetup(env={"APPLE_TOKEN": "other"}))

    with pytest.raises(PlanConflict, match=r"the grant apple and moat-plugin-x"):
        Grants(Vault("apple"), Orchard(("moat-plugin-x", contribution)), Redactor()).resolve(a_spec("apple"))


class Speaker(EndpointProvider):
    name, summary = "apple", "answers"

    def __init__(self, *endpoints: Endpoint) -> None:
        self.given = endpoints

    def endpoints(self, credential: Credential) -> tuple[Endpoint, ...]:
        return self.given

    async def respond(self, question: Question, credential: Credential) -> Reply:
        return Reply(body=f"{question.name} {credential.provider}".encode())


async def test_a_provider_answers_in_its_own_name_only() -> None:
    plugins, redactor = Orchard(), Redactor()
    prelude = Endpoint(Tcp("b.internal"), Stream(Upstream("b.test"), b"s3cr3t-prelude\r\n"), "apple")
    plugins.endpoints = {"apple": Speaker(Endpoint(UnixPath("/run/a.sock"), Respond("words"), "pear"), prelude)}
    grants = Grants(Vault("apple"), plugins, redactor)
    (answering, _) = grants.resolve(a_spec("apple")).endpoints
    reply = await grants.respond(Question("run_1", "words", "GET", "/"), Credential("apple", SECRET, "test"))

    assert answering.grant == "apple"
    assert reply.body == b"words apple"
    assert redactor.clean("s3cr3t-prelude") == REDACTED


@pytest.mark.parametrize(
    "where", [Tcp("a.internal", 5432), Tcp("a.internal", 5432, tls=False), UnixPath("/run/a.sock")], ids=str
)
def test_two_endpoints_at_one_place_refuse_the_run(where: Tcp | UnixPath) -> None:
    plugins = Orchard()
    first = Tcp("a.internal", 5432) if isinstance(where, Tcp) else where
    how = Respond("r", Reply())
    plugins.endpoints = {"apple": Speaker(Endpoint(first, how)), "pear": Speaker(Endpoint(where, how))}

    with pytest.raises(PlanConflict, match="apple and pear both want"):
        Grants(Vault("apple", "pear"), plugins, Redactor()).resolve(a_spec("apple", "pear"))


def test_what_a_registration_brought_comes_first_and_the_log_learns_it() -> None:
    redactor = Redactor()
    grants = Grants(Vault("apple"), Orchard(), redactor)
    mine = GivenCredential("api.apple.test", "Authorization", "Bearer s3cr3t-explicit", "mine")
    server = McpServer("linear", "https://mcp.example.com/mcp", "apple")

    resolved = grants.resolve(a_spec("apple"), Extras(credentials=(mine,), mcp_servers=(server,)))

    assert [rule.grant for rule in resolved.rules] == ["mine", "apple"]
    assert [endpoint.where for endpoint in resolved.endpoints] == [ProxyPath("/mcp/linear/")]
    assert redactor.clean("s3cr3t-explicit") == REDACTED


def test_values_that_are_lost_and_roles_that_nobody_serves_refuse_the_run() -> None:
    grants = Grants(Vault("apple"), Orchard(), Redactor())
    with pytest.raises(UsageError, match="went with the daemon"):
        grants.resolve(a_spec("apple"), Extras(are_values_lost=True))
    with pytest.raises(UsageError, match="aws"):
        grants.resolve(a_spec("apple"), Extras(aws_config=AwsConfig("arn:aws:iam::123456789012:role/x")))


def test_a_rewriter_that_is_not_installed_is_told_before_the_run() -> None:
    rule = RewriteResponse(Match("api.apple.test"), Rewriter("no-such-rewriter"))
    orchard = Orchard(("a plugin", Contribution((rule,))))

    with pytest.raises(PluginError, match="no-such-rewriter"):
        Grants(Vault(), orchard, Redactor()).resolve(a_spec())


def test_the_log_learns_what_an_answer_names_as_secret() -> None:
    plugins, redactor = Orchard(), Redactor()
    fixed = Endpoint(ProxyPath("/_moat/a/"), Respond("fixed", Reply(body=b"x", secrets=("s3cr3t-fixed",))))
    plugins.endpoints = {"apple": Speaker(fixed)}

    Grants(Vault("apple"), plugins, redactor).resolve(a_spec("apple"))

    assert redactor.clean("s3cr3t-fixed") == REDACTED


class Cloud(Orchard):
    """With a provider called aws."""

    def credential_provider(self, name: str) -> CredentialProvider:
        return Fruit(name)


def test_a_role_of_the_registration_is_served_by_the_provider_and_not_beside_a_grant() -> None:
    plugins = Cloud()
    plugins.endpoints = {"aws": Speaker(Endpoint(ProxyPath("/_moat/aws/"), Respond("keys")))}
    grants = Grants(Vault("aws"), plugins, Redactor())
    role = Extras(aws_config=AwsConfig("arn:aws:iam::123456789012:role/x"))

    (served,) = grants.resolve(a_spec(), role).endpoints
    assert (served.where, served.grant) == (ProxyPath("/_moat/aws/"), "aws")
    with pytest.raises(UsageError, match="two roles"):
        grants.resolve(a_spec("aws"), role)


def test_a_role_that_the_provider_refuses_is_the_registrations_mistake() -> None:
    class Strict(Speaker):
        def endpoints(self, credential: Credential) -> tuple[Endpoint, ...]:
            raise GrantFailed("it must be the ARN of a role", hint="look")

    plugins = Cloud()
    plugins.endpoints = {"aws": Strict()}

    with pytest.raises(UsageError, match="aws_config: it must be the ARN of a role"):
        Grants(Vault(), plugins, Redactor()).resolve(a_spec(), Extras(aws_config=AwsConfig("x")))


@pytest.mark.parametrize("how", [OnHost(5432), Stream(OnHost(5432).upstream), Forward(OnHost(5432).upstream)])
def test_no_provider_opens_a_port_of_this_machine(how: OnHost | Stream | Forward) -> None:
    plugins = Orchard()
    plugins.endpoints = {"apple": Speaker(Endpoint(Tcp("a.internal", 5432, tls=False), how))}

    with pytest.raises(PluginError, match="apple wants a port of this machine"):
        Grants(Vault("apple"), plugins, Redactor()).resolve(a_spec("apple"))


def test_a_registration_opens_ports_of_this_machine() -> None:
    extras = Extras(host_ports=(HostPort(5432),))

    (endpoint,) = Grants(Vault(), Orchard(), Redactor()).resolve(a_spec(), extras).endpoints

    assert endpoint == Endpoint(Tcp("host.moat.internal", 5432, tls=False), OnHost(5432))
