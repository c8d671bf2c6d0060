from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.errors import DaemonError
from moat.api.rules import Match, SetHeader
from moat.api.runs import NetworkPolicy
from moat.daemon.extras import (
    AwsConfig,
    ExtraHeader,
    Extras,
    GivenCredential,
    HostPort,
    McpServer,
    ResponseTransformer,
    TokenSubstitution,
    UnwantedHeader,
)
from moat.daemon.protocol import CAPABILITIES
from moat.daemon.registry import Entry, Place
from moat.daemon.state import UNRESOLVED, load, parse, render, restored, saved, state_file
from moat.net.rules import parse_rule
from moat.paths import Home, private_folder

from core.daemon.making import OTHER_ID, RUN_ID, SECRET, a_context, an_info

BOOT = "this-boot"
POLICY = NetworkPolicy("strict", ("*.example.com",), (parse_rule("allow GET api.example.com/repos/**"),))

PREDECESSORS_RUNS = [
    {
        "auth_token": "t0ken-s3cr3t", "run_id": RUN_ID, "container_id": "abc", "grants": ["github"],
        "mcp_servers": [{"Name": "docs", "URL": "https://mcp.example.com", "Auth": {"Grant": "mcp-docs"}}],
        "network_policy": "strict", "network_allow": ["*.example.com"], "copilot_github_auth": False,
        "aws_config": {"role_arn": "arn:aws:iam::1:role/r", "session_duration": 900_000_000_000},
        "transformer_specs": [{"host": "api.example.com", "kind": "response-scrub"}], "cred_profile": "vibrant",
    }
]  # fmt: skip


def an_entry(run_id: str = RUN_ID, **changes: Any) -> Entry:
    rules = (SetHeader(Match("api.apple.test"), "Authorization", f"Bearer {SECRET}", "apple"),)
    context = a_context(run_id, policy=POLICY, rules=rules, is_open=True, token=f"{run_id}-t0ken-s3cr3t")
    info = an_info(run_id, policy="strict", grants=("apple",), profile="work")
    values: dict[str, Any] = {"place": Place(nonce_sha256="ab" * 32, cookie=77)}
    return Entry(context, info, **(values | changes))


def test_a_run_comes_back_with_token_policy_and_place_but_closed_and_without_credentials() -> None:
    entry = an_entry()

    (back,), problems = parse(render([entry], BOOT), BOOT)

    assert problems == []
    assert (back.info, back.place) == (entry.info, entry.place)
    assert back.context.token_sha256 == entry.context.token_sha256
    assert back.context.policy == POLICY
    assert (back.context.rules, back.context.is_open, back.context.why_closed) == ((), False, UNRESOLVED)
    assert not back.context.trace_bodies


def test_what_its_trace_holds_comes_back_too() -> None:
    (back,), _ = parse(render([an_entry(extras=Extras(trace_bodies=True))], BOOT), BOOT)

    assert back.context.trace_bodies


def test_what_is_kept_holds_no_credential_and_no_token() -> None:
    extras = Extras(credentials=(GivenCredential("api.test", "X-Key", f"{SECRET}-given"),))

    text = render([an_entry(extras=extras)], BOOT).decode()

    assert "s3cr3t" not in text
    (back,), _ = parse(text.encode(), BOOT)
    assert back.extras.are_values_lost


def test_the_ports_of_this_machine_that_a_run_may_reach_come_back() -> None:
    extras = Extras(host_ports=(HostPort(5432, "db"), HostPort(80)))

    (back,), problems = parse(render([an_entry(extras=extras)], BOOT), BOOT)

    assert (back.extras, problems) == (extras, [])


def test_a_bare_array_of_an_older_format_is_read_too() -> None:
    data = json.dumps([{**asdict(saved(an_entry())), "news": 1}]).encode()

    (back,), problems = parse(data, BOOT)

    assert (back.run_id, problems) == (RUN_ID, [])


def test_after_the_machine_was_started_again_there_are_no_runs() -> None:
    assert parse(render([an_entry()], "another-boot"), BOOT) == ([], [])


def test_a_run_that_is_not_understood_is_left_out_and_told_and_the_others_come_back() -> None:
    content = json.loads(render([an_entry(), an_entry(OTHER_ID)], BOOT))
    content["runs"][0]["rules"] = ["perhaps GET api.example.com"]

    found, problems = parse(json.dumps(content).encode(), BOOT)

    assert [entry.run_id for entry in found] == [OTHER_ID]
    assert len(problems) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "7", "{}", '{"version": 0, "runs": []}', '{"version": 2, "runs": 7}', "\x00\xff", '["x"]', "[[]]"]
)
def test_a_file_that_cannot_be_read_is_set_aside_and_never_a_brick(
    home: Home, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = private_folder(home.daemon) / "runs.json"
    file.write_text(text)

    assert load(home, BOOT) == []

    assert file.with_name("runs.json.broken").read_text() == text
    assert "set aside" in caplog.text


def test_a_file_of_a_later_version_stops_the_start_and_stays_as_it_is(home: Home) -> None:
    file = private_folder(home.daemon) / "runs.json"
    content = {"version": 3, "moat": "9.1", "boot_id": BOOT, "runs": {"by": "id"}}
    file.write_text(json.dumps(content))

    with pytest.raises(DaemonError, match=r"moat 9\.1 \(format 3\)"):
        load(home, BOOT)

    assert [each.name for each in home.daemon.iterdir()] == ["runs.json"]
    assert json.loads(file.read_text()) == content
    assert load(home, "the next boot") == []


def test_a_run_that_needs_what_this_daemon_cannot_is_closed_and_handed_on_as_it_is() -> None:
    content = json.loads(render([an_entry(), an_entry(OTHER_ID)], BOOT))
    new = content["runs"][0] | {"needs": ["profiles", "dreams"], "rules": ["dream of api.example.com"], "dreams": [1]}
    new["info"]["policy"] = "dreamy"
    content["runs"][0] = new

    found, problems = parse(json.dumps(content).encode(), BOOT)

    assert problems == []
    assert [entry.run_id for entry in found] == [RUN_ID, OTHER_ID]
    assert "dreams" in found[0].context.why_closed
    assert (found[0].context.policy, found[0].context.is_open) == (NetworkPolicy("strict"), False)
    assert json.loads(render(found, BOOT))["runs"] == content["runs"]


def test_what_a_run_needs_is_kept_with_it() -> None:
    (back,), _ = parse(render([an_entry(needs=("profiles", "network-rules"))], BOOT), BOOT)

    assert (back.needs, back.unread) == (("profiles", "network-rules"), "")


def test_without_a_file_there_are_no_runs(home: Home) -> None:
    assert load(home, BOOT) == []
    assert state_file(home).name == "runs.json"


def test_an_unknown_policy_is_an_error_and_never_ignored() -> None:
    run = saved(an_entry())

    _, problems = parse(json.dumps([asdict(replace(run, info=replace(run.info, policy="lenient")))]).encode(), BOOT)  # type: ignore[arg-type] # a later version's

    assert len(problems) == 1
    assert restored(run).context.policy == POLICY


@given(st.text(max_size=40), st.booleans(), st.integers(0, 2**63), st.sampled_from(["permissive", "strict"]))
def test_whatever_a_run_is_called_it_comes_back_the_same(name: str, door: bool, cookie: int, mode: Any) -> None:
    entry = an_entry(place=Place(door, "", cookie))
    entry = replace(entry, info=replace(entry.info, workspace=name, command=(name, "x"), policy=mode))

    (back,), _ = parse(render([entry], BOOT), BOOT)

    assert (back.info, back.place) == (entry.info, entry.place)


@pytest.mark.parametrize(
    "content", [PREDECESSORS_RUNS, {"version": 1, "runs": PREDECESSORS_RUNS}], ids=["bare array", "version 1"]
)
def test_a_file_of_the_predecessor_which_kept_no_rules_is_set_aside_and_no_run_is_served(
    home: Home, content: object, caplog: pytest.LogCaptureFixture
) -> None:
    file = private_folder(home.daemon) / "runs.json"
    file.write_text(json.dumps(content))

    assert load(home, BOOT) == []

    assert json.loads(file.with_name("runs.json.broken").read_text()) == content
    assert "set aside" in caplog.text
    assert "s3cr3t" not in str([record.__dict__ for record in caplog.records])


NAMES = st.sampled_from(("api.example.com", "docs", "work"))
VALUES = st.text(max_size=9)
POLICIES = st.builds(
    NetworkPolicy,
    st.sampled_from(("permissive", "strict")),
    st.lists(st.sampled_from(("*.example.com", "api.test:8443")), max_size=2).map(tuple),
    st.lists(
        st.sampled_from(
            ("allow GET api.example.com/repos/**", "deny * *.example.org", "allow POST,PUT api.test/a/*")
        ).map(parse_rule),
        max_size=3,
    ).map(tuple),
)
EXTRAS = st.builds(
    Extras,
    credentials=st.lists(st.builds(GivenCredential, NAMES, NAMES, VALUES, NAMES), max_size=1).map(tuple),
    extra_headers=st.lists(st.builds(ExtraHeader, NAMES, NAMES, VALUES), max_size=1).map(tuple),
    remove_headers=st.lists(st.builds(UnwantedHeader, NAMES, NAMES), max_size=2).map(tuple),
    token_substitutions=st.lists(st.builds(TokenSubstitution, NAMES, NAMES, VALUES), max_size=1).map(tuple),
    response_transformers=st.lists(st.builds(ResponseTransformer, NAMES, NAMES), max_size=2).map(tuple),
    mcp_servers=st.lists(st.builds(McpServer, NAMES, NAMES, NAMES, NAMES, st.tuples(VALUES)), max_size=2).map(tuple),
    aws_config=st.none() | st.builds(AwsConfig, NAMES, NAMES, st.integers(0, 43_200), VALUES, NAMES),
)


@given(POLICIES, EXTRAS, st.sampled_from(("", "work")), st.lists(st.sampled_from(CAPABILITIES), max_size=3).map(tuple))
def test_whatever_was_asked_for_comes_back_but_for_values(
    policy: NetworkPolicy, extras: Extras, profile: str, needs: tuple[str, ...]
) -> None:
    entry = an_entry(extras=extras, needs=needs)
    info = replace(entry.info, profile=profile, policy=policy.mode)
    entry = replace(entry, context=replace(entry.context, policy=policy), info=info)

    (back,), problems = parse(render([entry], BOOT), BOOT)

    assert (problems, back.info, back.context.policy) == ([], info, policy)
    assert (back.extras, back.needs) == (extras.without_values(), needs)
    assert back.extras.are_values_lost == extras.has_values
