from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from moat.api import AgentRequest, KeptFile, Surroundings
from moat.testing import AgentContract
from moat_provider_claude import placeholders
from moat_provider_claude.agent import ClaudeCode

ID = "1e5fceea-cdae-4da8-8410-1646adfff94a"
KEPT = f".claude/projects/-workspace/{ID}.jsonl"


class TestClaudeCode(AgentContract):
    agent = ClaudeCode()
    kept_file = KEPT

    def file(self, name: str, **more: object) -> Any:
        request = AgentRequest(acts_freely=bool(more.pop("acts_freely", True)))
        return json.loads(self.agent.setup(request, self.surroundings(**more)).files[f"/home/moat/{name}"])

    def test_a_login_of_placeholders_never_ends_and_can_be_renewed_if_the_real_one_can(self) -> None:
        for renewable, refresh in (("yes", placeholders.REFRESH), ("no", "")):
            metadata = {"scopes": "user:inference", "subscription": "pro", "renewable": renewable}
            login = self.file(".claude/.credentials.json", metadata=metadata)["claudeAiOauth"]
            assert login["accessToken"] == placeholders.ACCESS
            assert login["refreshToken"] == refresh
            assert (login["scopes"], login["subscriptionType"]) == (["user:inference"], "pro")
            assert login["expiresAt"] > 4e12

    def test_on_a_key_there_is_no_login(self) -> None:
        setup = self.agent.setup(AgentRequest(), self.surroundings(grant="anthropic", grants=("anthropic",)))

        assert "/home/moat/.claude/.credentials.json" not in setup.files

    def test_a_key_of_the_workspaces_is_hidden_from_the_agent_that_has_a_login(self) -> None:
        both = self.surroundings(grants=("anthropic", "claude"))
        alone = self.surroundings(grant="anthropic", grants=("anthropic",))

        assert list(self.agent.command(AgentRequest(), both))[:3] == ["env", "-u", "ANTHROPIC_API_KEY"]
        assert self.agent.command(AgentRequest(), alone)[0] == "/opt/some/program"

    def test_nothing_is_asked_when_it_starts(self) -> None:
        state = self.file(".claude.json")

        assert state["hasCompletedOnboarding"]
        assert state["projects"]["/workspace"]["hasTrustDialogAccepted"]
        assert placeholders.KEY.endswith(state["customApiKeyResponses"]["approved"][0])
        assert self.file(".claude/settings.json")["skipDangerousModePermissionPrompt"]
        assert "skipDangerousModePermissionPrompt" not in self.file(".claude/settings.json", acts_freely=False)

    def test_what_the_user_likes_is_carried_over_by_name_and_by_form(self) -> None:
        own = {
            "model": "opus",
            "outputStyle": "Explanatory",
            "alwaysThinkingEnabled": True,
            "theme": "x" * 40,
            "language": "s3cr3t/with+more=",
            "env": {"ANTHROPIC_API_KEY": "s3cr3t"},
            "apiKeyHelper": "cat s3cr3t",
            "hooks": {},
        }

        settings = self.file(".claude/settings.json", host_files={".claude/settings.json": json.dumps(own).encode()})

        assert (
            settings.items() >= {"model": "opus", "outputStyle": "Explanatory", "alwaysThinkingEnabled": True}.items()
        )
        assert not settings.keys() & {"theme", "language", "env", "apiKeyHelper", "hooks"}


def kept(path: str, *entries: object) -> KeptFile:
    head = "\n".join(json.dumps(entry) for entry in entries).encode()
    return KeptFile(path, datetime(2030, 1, 1, tzinfo=UTC), head)


@pytest.mark.parametrize(
    "content", ["fix it", [{"type": "tool_result"}, {"type": "text", "text": "fix it"}]], ids=["text", "parts"]
)
def test_a_session_is_called_like_the_first_thing_that_was_said(content: object) -> None:
    file = kept(
        KEPT,
        {"type": "queue-operation"},
        {"type": "user", "isMeta": True, "message": {"content": "a caveat"}},
        {"type": "user", "message": {"role": "user", "content": content}},
        {"type": "user", "message": {"content": "more"}},
    )

    (session,) = ClaudeCode().sessions([file])

    assert (session.id, session.title) == (ID, "fix it")


@pytest.mark.parametrize(
    "path", [f".claude/projects/-workspace/{ID}/{ID}.jsonl", ".claude/projects/-workspace/x.jsonl"]
)
def test_what_is_no_transcript_is_no_session(path: str) -> None:
    assert ClaudeCode().sessions([kept(path, {"type": "user", "message": {"content": "x"}})]) == []


def test_a_transcript_in_which_nothing_was_said_is_no_session() -> None:
    assert ClaudeCode().sessions([kept(KEPT, {"type": "summary"})]) == []


def test_surroundings_are_values() -> None:
    assert "s3cr3t" not in repr(
        Surroundings("/h", "/w", (), datetime(2030, 1, 1, tzinfo=UTC), host_files={"x": b"s3cr3t"})
    )


@pytest.mark.parametrize(
    ("stamps", "began"),
    [
        (["2030-01-01T10:00:00.5Z", "2030-01-01T11:00:00Z"], datetime(2030, 1, 1, 10, 0, 0, 500_000, tzinfo=UTC)),
        ([None, "2030-01-01T11:00:00+01:00"], datetime(2030, 1, 1, 10, tzinfo=UTC)),
        (["soon", 5, [], "0001-01-01T00:00:00+14:00"], None),
    ],
)
def test_a_session_began_when_its_first_line_with_a_time_says(stamps: list[object], began: datetime | None) -> None:
    entries = [{"type": "x"} if each is None else {"type": "x", "timestamp": each} for each in stamps]

    (session,) = ClaudeCode().sessions([kept(KEPT, *entries, {"type": "user", "message": {"content": "fix it"}})])

    assert session.began_at == began


def test_a_line_nested_too_deeply_to_be_read_is_passed_over() -> None:
    file = kept(KEPT, {"type": "user", "message": {"content": "fix it"}})

    (session,) = ClaudeCode().sessions([replace(file, head=b"[" * 200_000 + b"\n" + file.head)])

    assert session.title == "fix it"
