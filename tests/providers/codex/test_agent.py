from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from moat.api import AgentRequest, KeptFile
from moat.testing import AgentContract
from moat_provider_codex import placeholders
from moat_provider_codex.agent import CodexAgent
from moat_provider_codex.login import read_claims

ID = "01a22a09-26bf-7a70-b42e-24f5697ce46e"
KEPT = f".codex/sessions/2026/11/30/rollout-2026-11-30T01-19-32-{ID}.jsonl"
ACCOUNT = {"account": "acct-1", "plan": "pro"}


class TestCodexAgent(AgentContract):
    agent = CodexAgent()
    kept_file = KEPT

    def file(self, name: str, **more: object) -> str:
        request = AgentRequest(acts_freely=bool(more.pop("acts_freely", True)))
        return self.agent.setup(request, self.surroundings(**more)).files[f"/home/moat/.codex/{name}"]

    def config(self, **more: object) -> dict[str, Any]:
        return tomllib.loads(self.file("config.toml", **more))

    def test_a_login_of_placeholders_names_the_real_account(self) -> None:
        login = json.loads(self.file("auth.json", metadata=ACCOUNT))

        tokens = login["tokens"]
        assert (tokens["access_token"], tokens["refresh_token"]) == (placeholders.ACCESS, placeholders.REFRESH)
        assert tokens["account_id"] == "acct-1"
        claims = read_claims(tokens["id_token"])["https://api.openai.com/auth"]
        assert (claims["chatgpt_account_id"], claims["chatgpt_plan_type"]) == ("acct-1", "pro")
        assert login["last_refresh"] == "2030-01-02T00:00:00Z"  # the daemon renews it: Codex need not

    def test_on_a_key_there_is_no_login(self) -> None:
        login = json.loads(self.file("auth.json", grant="openai", grants=("openai",)))

        assert login == {"OPENAI_API_KEY": placeholders.KEY}

    def test_a_key_of_the_workspaces_is_hidden_from_the_agent_that_has_a_login(self) -> None:
        words = list(self.agent.command(AgentRequest(), self.surroundings(grants=("openai", "codex"))))

        assert words[:5] == ["env", "-u", "OPENAI_API_KEY", "-u", "CODEX_API_KEY"]

    def test_a_prompt_is_never_taken_for_an_option(self) -> None:
        words = list(self.agent.command(AgentRequest("--help", "4711"), self.surroundings()))

        assert words[1:] == ["exec", "--skip-git-repo-check", "resume", "4711", "--", "--help"]

    def test_nothing_is_asked_when_it_starts_and_its_own_sandbox_is_off(self) -> None:
        config = self.config()

        assert config["projects"]["/workspace"]["trust_level"] == "trusted"
        assert (config["approval_policy"], config["sandbox_mode"]) == ("never", "danger-full-access")
        assert self.config(acts_freely=False)["approval_policy"] == "untrusted"
        assert config["shell_environment_policy"]["inherit"] == "all"

    def test_what_the_user_likes_is_carried_over_by_name_and_by_form(self) -> None:
        own = 'model = "gpt-9"\nmodel_verbosity = "s3cr3t/with+more="\nexperimental_bearer_token = "s3cr3t"\n'

        config = self.config(host_files={".codex/config.toml": own.encode()})

        assert config["model"] == "gpt-9"
        assert not config.keys() & {"model_verbosity", "experimental_bearer_token"}


def kept(path: str, *entries: object) -> KeptFile:
    head = "\n".join(json.dumps(entry) for entry in entries).encode()
    return KeptFile(path, datetime(2030, 1, 1, tzinfo=UTC), head)


def said(text: str, role: str = "user") -> dict[str, object]:
    payload = {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
    return {"type": "response_item", "payload": payload}


def test_a_session_is_called_like_the_first_thing_that_the_user_said() -> None:
    in_his_name = (said("# AGENTS.md instructions\n…"), said("<environment_context>"))
    entries = [{"type": "session_meta"}, said("You are Codex", "developer"), *in_his_name, said("fix it"), said("more")]

    (session,) = CodexAgent().sessions([kept(KEPT, *entries)])

    assert (session.id, session.title) == (ID, "fix it")


@pytest.mark.parametrize("path", [".codex/sessions/x.jsonl", f".codex/sessions/{ID}.jsonl"])
def test_what_is_no_transcript_is_no_session(path: str) -> None:
    assert CodexAgent().sessions([kept(path, said("fix it"))]) == []


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

    (session,) = CodexAgent().sessions([kept(KEPT, *entries, said("fix it"))])

    assert session.began_at == began


def test_a_line_nested_too_deeply_to_be_read_is_passed_over() -> None:
    file = kept(KEPT, said("fix it"))

    (session,) = CodexAgent().sessions([replace(file, head=b"[" * 200_000 + b"\n" + file.head)])

    assert session.title == "fix it"
