"""The real Codex, from npm, in real sandboxes, with a stand-in of ChatGPT that wants the real login."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat_provider_codex.agent import CodexAgent
from support.openai_api import KEY, USED_UP, OpenAI, decoded
from support.terminal import terminal
from support.vendors import MCP_TOKEN, running

from e2e.agents import (
    LOOK,
    RUNTIMES,
    Stage,
    assert_a_session_is_found_by_every_name,
    assert_nothing_real_is_held,
    staged,
)

PLACEHOLDERS = {"codex": "moat-placeholder-of-an-access-token", "openai": "sk-moat-placeholder"}

PERSISTENT = 'env_key="OPENAI_API_KEY", wire_api="responses", request_max_retries=5, stream_max_retries=5'
MAGIC = b"\x28\xb5\x2f\xfd"  # of a frame of zstd (RFC 8878 §3.1.1)


@pytest.fixture(scope="module", params=RUNTIMES)
def house(request: pytest.FixtureRequest) -> Iterator[Stage[OpenAI]]:
    vendor = OpenAI()
    with running(vendor), staged(request.param, vendor, CodexAgent()) as stage:
        grant(stage)
        yield stage


def grant(house: Stage[OpenAI]) -> None:
    """Store the newest login."""
    house.moat.ok("grant", "codex", "--with-token", input=house.vendor.login().encode())


@pytest.fixture(scope="module")
def work(house: Stage[OpenAI]) -> Path:
    return house.workspace("work")


@pytest.fixture(scope="module")
def first(house: Stage[OpenAI], work: Path) -> str:
    """What Codex answers to a task that needs a tool, over a WebSocket."""
    task = f"RUN: echo by-the-agent > made.txt; cat ~/.codex/auth.json; echo found: $({LOOK})"
    return house.said("codex", work, "--yes", "--name", "first", "-p", task)


def test_a_task_is_done_with_a_tool_over_a_websocket(house: Stage[OpenAI], work: Path, first: str) -> None:
    assert (work / "made.txt").read_text() == "by-the-agent\n"
    assert "the tool said: " in first
    assert "WEBSOCKET chatgpt.com/backend-api/codex/responses 101" in house.vendor.log
    assert "POST chatgpt.com/backend-api/codex/responses 200" not in house.vendor.log
    assert [line for line in house.vendor.log if line.endswith(" 401")] == []


def test_nothing_real_is_inside(house: Stage[OpenAI], first: str) -> None:
    assert "found: none" in first
    assert "moat-placeholder-of-an-access-token" in first
    assert "s3cr3t" not in first
    house.assert_kept_clean()
    assert set(house.vendor.shown) == {f"Bearer {house.vendor.access}"}


def test_a_session_goes_on_without_websockets_and_uses_an_mcp_server_while_the_service_is_overloaded(
    house: Stage[OpenAI], work: Path, first: str
) -> None:
    house.vendor.has_websockets = False
    house.vendor.failures += [529, 503]
    try:
        answer = house.said("codex", work, "--resume", "first", "-p", "LOOK UP it")
    finally:
        house.vendor.has_websockets = True

    assert "the answer is 4711" in answer
    assert house.vendor.called[-1]["name"] == "lookup"
    assert "echo by-the-agent" in house.vendor.said[-1]  # what was said before went along
    posts = [line.rpartition(" ")[2] for line in house.vendor.log if line.startswith("POST") and "/responses" in line]
    assert posts == ["529", "503", "200", "200"]
    assert house.vendor.failures == []
    assert {coding for coding, _ in house.vendor.bodies} == {"zstd"}


def test_a_429_ends_codex_whatever_is_set_and_its_session_goes_on_later(house: Stage[OpenAI]) -> None:
    vendor, work = house.vendor, house.workspace("too many", mcp=[])
    house.moat.grant("openai", KEY)
    persistent = f'model_providers.own={{name="own", base_url="https://api.openai.com/v1", {PERSISTENT}}}'
    own = ("--grant", "openai", "--", "-c", persistent, "-c", 'model_provider="own"')
    vendor.has_websockets, vendor.log = False, []
    try:
        vendor.failures += [429, USED_UP, 429]
        first = house.run("codex", work, "--name", "walrus", "-p", "a walrus")
        spent = house.run("codex", work, "--resume", "walrus", "-p", "an otter")
        stubborn = house.run("codex", work, "-p", "a seal", *own)
        asked = [line.rpartition(" ")[2] for line in vendor.log if line.startswith("POST") and "/responses" in line]
        later = house.said("codex", work, "--resume", "walrus", "-p", "a gull")
    finally:
        vendor.has_websockets, vendor.failures = True, []

    assert asked == ["429", "429", "429"]  # each once: Codex 0.171 has retries of 5xx only, and no setting for others
    assert (first.returncode, spent.returncode, stubborn.returncode) == (1, 1, 1)
    assert b"exceeded retry limit, last status: 429 Too Many Requests" in first.stderr
    assert b"hit your usage limit" in spent.stderr
    assert b"exceeded retry limit, last status: 429 Too Many Requests" in stubborn.stderr
    assert b"renew it" not in first.stderr + spent.stderr + stubborn.stderr
    assert "hello, you said: a gull" in later
    for animal in ("a walrus", "an otter"):
        assert animal in vendor.said[-1]  # what was said before went along


def test_what_is_sent_without_a_websocket_is_coded_and_leaves_as_it_came(house: Stage[OpenAI], work: Path) -> None:
    house.vendor.has_websockets, house.vendor.bodies = False, []
    try:
        answer = house.said("codex", work, "--yes", "--name", "coded", "-p", "a platypus")
    finally:
        house.vendor.has_websockets = True

    assert "hello, you said: a platypus" in answer
    (coding, body) = house.vendor.bodies[-1]
    assert coding == "zstd"
    assert body.startswith(MAGIC)
    assert b"platypus" in decoded(coding, body)
    trace = json.loads(house.moat.ok("trace", "--json", "coded"))
    asked = [each for each in trace if each["path"].endswith("/responses")]
    # A WebSocket is tried first. Codex offers HTTP/2 and HTTP/1.1 for the rest; moat serves it the latter.
    assert [(each["method"], each["status"]) for each in asked] == [("GET", 426), ("POST", 200)]
    assert asked[-1]["request_bytes"] == len(body)
    assert {each["protocol"] for each in trace} == {"http/1.1"}


def test_a_conversation_in_a_terminal_outlives_its_token(house: Stage[OpenAI], work: Path, first: str) -> None:
    vendor = house.vendor
    with terminal(house.moat, "codex", str(work), "--continue", "--name", "talk") as window:
        window.read_until("OpenAI")
        window.say("xylophone", lambda: any("xylophone" in said for said in vendor.said))
        vendor.end_token()
        window.say("kaleidoscope", lambda: any("kaleidoscope" in said for said in vendor.said))
        house.moat.ok("stop", "talk")
        window.read_until("requests")

    renewals = [line for line in vendor.log if line.startswith("POST auth.openai.com")]
    assert renewals == ["POST auth.openai.com/oauth/token 200"]
    assert vendor.newest == vendor.ended + 1
    house.assert_kept_clean()


def test_a_session_is_found_by_its_run_by_its_id_and_by_the_beginning_of_either(
    house: Stage[OpenAI], work: Path, first: str
) -> None:
    assert_a_session_is_found_by_every_name(house, "codex", work)
    assert "echo by-the-agent" in house.vendor.said[-1]  # what was said before went along


def test_a_login_that_was_revoked_is_told_with_what_to_type(house: Stage[OpenAI], work: Path) -> None:
    house.vendor.is_revoked = True
    try:
        done = house.run("codex", work, "--yes", "-p", "hello")
    finally:
        house.vendor.is_revoked = False
        grant(house)

    assert done.returncode == 1
    assert b"chatgpt.com did not accept the credential codex any more (401)" in done.stderr
    assert b"renew it: moat grant codex" in done.stderr


@pytest.mark.parametrize("grant_name", ["codex", "openai"])
def test_no_process_of_a_run_holds_or_has_mapped_anything_real(house: Stage[OpenAI], grant_name: str) -> None:
    vendor, work, name = house.vendor, house.workspace(f"held by {grant_name}"), f"held-{grant_name}"
    house.moat.grant("openai", KEY)
    with terminal(house.moat, "codex", str(work), "--yes", "--grant", grant_name, "--name", name) as window:
        window.read_until("OpenAI")
        window.say(f"ocelot-{grant_name}", lambda: any(f"ocelot-{grant_name}" in said for said in vendor.said))
        if grant_name == "codex":
            vendor.end_token()  # and what the renewal brought is looked for as well
        placeholder = PLACEHOLDERS[grant_name]
        assert_nothing_real_is_held(house, window, placeholder, "access-s3cr3t", "refresh-s3cr3t", KEY, MCP_TOKEN)
        house.moat.ok("stop", name)
        window.read_until("requests")

    house.assert_kept_clean()


def test_a_key_that_is_not_taken_is_told_with_what_to_type(house: Stage[OpenAI]) -> None:
    work = house.workspace("with a revoked key")
    house.moat.grant("openai", KEY)
    house.vendor.is_revoked = True
    try:
        done = house.run("codex", work, "--yes", "--grant", "openai", "-p", "hello")
    finally:
        house.vendor.is_revoked = False

    assert done.returncode == 1
    assert b"api.openai.com did not accept the credential openai any more (401)" in done.stderr
    assert b"renew it: moat grant openai" in done.stderr
    assert b"credential codex" not in done.stderr


def test_a_key_works_as_well_and_alone_and_under_a_strict_policy(house: Stage[OpenAI]) -> None:
    work = house.workspace("with a key", mcp=[])
    house.moat.grant("openai", KEY)
    house.vendor.shown.clear()

    strict = ("--grant", "openai", "--policy", "strict")
    answer = house.said("codex", work, *strict, "-p", f"RUN: env; echo found: $({LOOK})")

    assert "OPENAI_API_KEY=sk-moat-placeholder" in answer
    assert "found: none" in answer
    assert set(house.vendor.shown) <= {f"Bearer {KEY}", "Bearer sk-moat-placeholder"}  # the latter at chatgpt.com


def test_a_conversation_on_a_key_goes_on_with_an_mcp_server_while_the_service_is_overloaded(
    house: Stage[OpenAI],
) -> None:
    work, vendor = house.workspace("talk with a key"), house.vendor
    house.moat.grant("openai", KEY)
    with terminal(house.moat, "codex", str(work), "--yes", "--grant", "openai", "--name", "keyed") as window:
        window.read_until("OpenAI")
        window.say("glockenspiel", lambda: any("glockenspiel" in said for said in vendor.said))
        house.moat.ok("stop", "keyed")
        window.read_until("requests")
    vendor.failures += [503, 500]
    vendor.has_websockets = False
    try:
        answer = house.said("codex", work, "--grant", "openai", "--resume", "keyed", "-p", "LOOK UP it")
    finally:
        vendor.has_websockets = True

    assert "the answer is 4711" in answer
    assert "glockenspiel" in vendor.said[-1]  # what was said before went along
    assert vendor.failures == []
    house.assert_kept_clean()
