"""The real Claude Code, from npm, in real sandboxes, with a stand-in of Anthropic that wants the real login."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from moat_provider_claude.agent import ClaudeCode
from support.anthropic_api import KEY, Anthropic
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

PLACEHOLDERS = {"claude": "sk-ant-oat01-moat-placeholder", "anthropic": "sk-ant-api03-moat-placeholder"}


@dataclass
class House(Stage[Anthropic]):
    """The stage of Claude Code."""

    def grant(self) -> None:
        """Store the newest login."""
        login = {"accessToken": self.vendor.access, "refreshToken": self.vendor.refresh, "expiresAt": 4_102_444_800_000}
        text = json.dumps({"claudeAiOauth": {**login, "scopes": ["user:inference"], "subscriptionType": "max"}})
        self.moat.ok("grant", "claude", "--with-token", input=text.encode())


@pytest.fixture(scope="module", params=RUNTIMES)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    vendor = Anthropic()
    with running(vendor), staged(request.param, vendor, ClaudeCode()) as stage:
        made = House(stage.moat, vendor, stage.runtime)
        made.grant()
        yield made


@pytest.fixture(scope="module")
def work(house: House) -> Path:
    return house.workspace("work")


@pytest.fixture(scope="module")
def first(house: House, work: Path) -> str:
    """What Claude Code answers to a task that needs a tool, while the service is overloaded for a moment."""
    house.vendor.failures += [529, 429]
    task = f"RUN: echo by-the-agent > made.txt; env; cat ~/.claude/.credentials.json; echo; echo found: $({LOOK})"
    return house.said("claude", work, "--yes", "--name", "first", "-p", task)


def test_a_task_is_done_with_a_tool_and_an_overloaded_service_is_asked_again(
    house: House, work: Path, first: str
) -> None:
    assert (work / "made.txt").read_text() == "by-the-agent\n"
    assert "the tool said: " in first
    messages = [line.rpartition(" ")[2] for line in house.vendor.log if "/v1/messages" in line]
    assert messages[1:5] == ["529", "429", "200", "200"]  # after that of `moat grant`
    assert "POST api.anthropic.com/v1/messages 401" not in house.vendor.log


def test_nothing_real_is_inside(house: House, first: str) -> None:
    assert "found: none" in first
    assert "sk-ant-oat01-moat-placeholder-not-a-token" in first
    assert "s3cr3t" not in first
    house.assert_kept_clean()
    assert set(house.vendor.shown) == {f"Bearer {house.vendor.access}"}


def test_a_session_is_gone_on_with_by_the_name_of_its_run_and_uses_an_mcp_server(
    house: House, work: Path, first: str
) -> None:
    answer = house.said("claude", work, "-e", "ENABLE_TOOL_SEARCH=false", "--resume", "first", "-p", "LOOK UP it")

    assert "the answer is 4711" in answer
    assert house.vendor.called[-1]["name"] == "lookup"
    assert "echo by-the-agent" in house.vendor.said[-1]  # what was said before went along
    (session,) = json.loads(house.said("sessions", work, "--json"))
    assert session["title"].startswith("RUN: echo by-the-agent")


def test_a_conversation_in_a_terminal_outlives_its_token(house: House, work: Path, first: str) -> None:
    vendor = house.vendor
    with terminal(house.moat, "claude", str(work), "--continue", "--name", "talk") as window:
        window.read_until("bypass")
        window.say("xylophone", lambda: any("xylophone" in said for said in vendor.said))
        vendor.ended = vendor.newest
        window.say("kaleidoscope", lambda: any("kaleidoscope" in said for said in vendor.said))
        house.moat.ok("stop", "talk")
        window.read_until("requests")

    renewals = [line for line in vendor.log if "/v1/oauth/token" in line]
    assert renewals == ["POST platform.claude.com/v1/oauth/token 200"]
    assert vendor.newest == vendor.ended + 1
    house.assert_kept_clean()


def test_a_session_is_found_by_its_run_by_its_id_and_by_the_beginning_of_either(
    house: House, work: Path, first: str
) -> None:
    assert_a_session_is_found_by_every_name(house, "claude", work)
    assert "echo by-the-agent" in house.vendor.said[-1]  # what was said before went along


def test_a_login_that_was_revoked_is_told_with_what_to_type(house: House, work: Path) -> None:
    house.vendor.is_revoked = True
    try:
        done = house.run("claude", work, "--yes", "-p", "hello")
    finally:
        house.vendor.is_revoked = False
        house.grant()

    assert done.returncode == 1
    assert b"api.anthropic.com did not accept the credential claude any more (401)" in done.stderr
    assert b"renew it: moat grant claude" in done.stderr


@pytest.mark.parametrize("grant", ["claude", "anthropic"])
def test_no_process_of_a_run_holds_or_has_mapped_anything_real(house: House, grant: str) -> None:
    vendor, work = house.vendor, house.workspace(f"held by {grant}")
    house.moat.grant("anthropic", KEY)
    with terminal(house.moat, "claude", str(work), "--yes", "--grant", grant, "--name", f"held-{grant}") as window:
        window.read_until("bypass")
        window.say(f"ocelot-{grant}", lambda: any(f"ocelot-{grant}" in said for said in vendor.said))
        if grant == "claude":
            vendor.ended = vendor.newest  # and what the renewal brought is looked for as well
        assert_nothing_real_is_held(
            house, window, PLACEHOLDERS[grant], "sk-ant-oat01-s3cr3t", "sk-ant-ort01-s3cr3t", KEY, MCP_TOKEN
        )
        house.moat.ok("stop", f"held-{grant}")
        window.read_until("requests")

    house.assert_kept_clean()


def test_a_key_that_is_not_taken_is_told_with_what_to_type(house: House) -> None:
    work = house.workspace("with a revoked key")
    house.moat.grant("anthropic", KEY)
    house.vendor.is_revoked = True
    few = ("-e", "CLAUDE_CODE_MAX_RETRIES=1")  # else it asks ten times, for three minutes: 2.1 takes 401 for passing
    try:
        done = house.run("claude", work, "--yes", "--grant", "anthropic", *few, "-p", "hello")
    finally:
        house.vendor.is_revoked = False

    assert done.returncode == 1
    assert b"api.anthropic.com did not accept the credential anthropic any more (401)" in done.stderr
    assert b"renew it: moat grant anthropic" in done.stderr
    assert b"credential claude" not in done.stderr
    assert b"401" in done.stdout  # and the agent's own word


def test_a_key_works_as_well_and_alone_and_under_a_strict_policy(house: House) -> None:
    work = house.workspace("with a key", mcp=[])
    house.moat.grant("anthropic", KEY)
    house.vendor.shown.clear()

    strict = ("--grant", "anthropic", "--policy", "strict")
    answer = house.said("claude", work, *strict, "-p", f"RUN: env; echo found: $({LOOK})")

    assert "ANTHROPIC_API_KEY=sk-ant-api03-moat-placeholder" in answer
    assert "found: none" in answer
    assert set(house.vendor.shown) == {KEY}


def test_a_conversation_on_a_key_goes_on_with_an_mcp_server_while_the_service_is_overloaded(house: House) -> None:
    work, vendor = house.workspace("talk with a key"), house.vendor
    house.moat.grant("anthropic", KEY)
    with terminal(house.moat, "claude", str(work), "--yes", "--grant", "anthropic", "--name", "keyed") as window:
        window.read_until("bypass")
        window.say("glockenspiel", lambda: any("glockenspiel" in said for said in vendor.said))
        house.moat.ok("stop", "keyed")
        window.read_until("requests")
    vendor.failures += [429, 529]
    answer = house.said(
        "claude",
        work,
        "--grant",
        "anthropic",
        "-e",
        "ENABLE_TOOL_SEARCH=false",
        "--resume",
        "keyed",
        "-p",
        "LOOK UP it",
    )

    assert "the answer is 4711" in answer
    assert "glockenspiel" in vendor.said[-1]  # what was said before went along
    assert vendor.failures == []
    house.assert_kept_clean()
