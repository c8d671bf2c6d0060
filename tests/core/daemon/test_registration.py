from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.container import ContainerSetup, Mount
from moat.api.endpoints import Endpoint, Reply, Respond, Tcp, UnixPath
from moat.api.errors import UsageError
from moat.api.rules import Match, RemoveHeader
from moat.api.runs import NetworkPolicy
from moat.daemon.grants import Resolved
from moat.daemon.protocol import RegisterRequest, SetupRequest
from moat.daemon.registration import (
    checked_policy,
    checked_register,
    context_of,
    info_of,
    places_for,
    setup_of,
    spec_of,
    token_of,
)
from moat.daemon.registry import hash_token
from moat.net.rules import parse_rule
from moat.redaction import marks_of

from core.daemon.making import RUN_ID


def test_plugins_are_shown_what_was_asked() -> None:
    spec = spec_of(RegisterRequest(RUN_ID, "otter", ("a",), "strict", ("x.org",), "docker", "/w", ("make",)))

    assert (spec.workspace, spec.command, spec.grants, spec.runtime) == (Path("/w"), ("make",), ("a",), "docker")
    assert spec.policy == NetworkPolicy("strict", ("x.org",))
    assert spec_of(SetupRequest()).runtime == ""


@pytest.mark.parametrize("mode", ["", "Strict", "none"])
def test_an_unknown_policy_is_never_taken_as_permissive(mode: str) -> None:
    with pytest.raises(UsageError, match="not a network policy"):
        checked_policy(mode, ())


def test_a_sealed_run_begins_closed_and_one_without_a_door_open() -> None:
    sealed = context_of(RegisterRequest(RUN_ID), NetworkPolicy(), Resolved(), "t")
    by_token = context_of(RegisterRequest(RUN_ID, needs_door=False), NetworkPolicy(), Resolved(), "t")

    assert (sealed.is_open, by_token.is_open) == (False, True)
    assert sealed.token_sha256 == hash_token("t")


def test_a_run_without_a_name_gets_one() -> None:
    assert info_of(RegisterRequest(RUN_ID), NetworkPolicy()).name
    assert info_of(RegisterRequest(RUN_ID, name="otter"), NetworkPolicy()).name == "otter"


def test_a_token_is_kept_or_made_fresh() -> None:
    assert token_of(RegisterRequest(RUN_ID, auth_token="a" * 64)) == "a" * 64
    assert token_of(RegisterRequest(RUN_ID)) != token_of(RegisterRequest(RUN_ID))
    with pytest.raises(UsageError):
        checked_register(RegisterRequest(RUN_ID, auth_token="A" * 64))


def test_a_setup_holds_placeholders_mounts_and_hosts() -> None:
    setup = ContainerSetup({"A": "1"}, {"/f": "x"}, (Mount(Path("/s"), "/t", read_only=True),))

    known = marks_of(["s3cr3t-value"])

    rules = (RemoveHeader(Match("b.org"), "X"), RemoveHeader(Match("a.org"), "X"))
    answer = setup_of(Resolved(rules, setup), "CERT", known)

    assert (answer.env, answer.files, answer.mounts) == ({"A": "1"}, {"/f": "x"}, (("/s", "/t", True),))
    assert (answer.hosts, answer.ca_certificate) == (("a.org", "b.org"), "CERT")
    assert answer.rules == ("b.org: removes X", "a.org: removes X")
    assert answer.known == known


def test_network_rules_come_as_lines_and_a_mistake_is_the_users() -> None:
    assert checked_policy("strict", (), ("allow GET x.org/a",)).rules == (parse_rule("allow GET x.org/a"),)
    with pytest.raises(UsageError, match="no network rule"):
        checked_policy("permissive", (), ("maybe x.org",))


def test_a_run_has_the_sockets_of_its_endpoints_and_none_over_what_is_moats() -> None:
    how = Respond("r", Reply())
    resolved = Resolved(endpoints=(Endpoint(Tcp("a.internal", 5432), how), Endpoint(UnixPath("/run/a/a.sock"), how)))

    assert [name for name, *_ in places_for(resolved)] == ["tcp:5432", "unix:/run/a/a.sock"]
    with pytest.raises(UsageError, match="/etc/passwd"):
        places_for(Resolved(endpoints=(Endpoint(UnixPath("/etc/passwd"), how),)))
