"""Codex as an agent: its command, and what it finds in a home that is new in every run.

auth.json     placeholders; the proxy puts the login or key in      AGENTS.md    where it is
config.toml   nothing to be asked at first, MCP servers             sessions/    kept for the workspace
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any

from moat.api import (
    AgentProvider,
    AgentRequest,
    AgentSetup,
    KeptFile,
    Session,
    Surroundings,
    began_at,
    instructions,
)

from moat_provider_codex.placeholders import ACCESS, KEY, KEY_VARIABLES, REFRESH, identity

KEY_GRANT = "openai"
CONFIG = ".codex/config.toml"
SESSION = re.compile(r"\.codex/sessions/.+/rollout-.+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl")
# What is carried over from the user's own settings: short words of these names, which can be no secret.
WORDS = ("model", "model_reasoning_effort", "model_reasoning_summary", "model_verbosity", "personality")
_NOT_THE_USERS = ("# AGENTS.md instructions", "<")  # what Codex says in the user's name
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,31}")


class CodexAgent(AgentProvider):
    """Codex."""

    name, summary = "codex", "Codex"
    program = "codex"
    grants = ("codex", "openai")
    dependencies = ("node@22", "apt:git", "npm:@openai/codex")
    post_build = "codex --version"
    size_mb = 200
    hosts = ("chatgpt.com", "api.openai.com")
    kept = (".codex/sessions",)
    host_files = (CONFIG,)

    def command(self, request: AgentRequest, around: Surroundings) -> Sequence[str]:
        """Hide the variables of a key that is not the agent's own: they would be taken before the login."""
        has_other_key = around.grant != KEY_GRANT and KEY_GRANT in around.grants
        hidden = ("env", *(word for name in KEY_VARIABLES for word in ("-u", name))) if has_other_key else ()
        words = [*hidden, *around.program]
        words += ["exec", "--skip-git-repo-check"] if request.prompt else []
        words += ["--model", request.model] if request.model else []
        words += list(request.arguments)
        words += ["resume", request.session] if request.session else []
        return [*words, "--", request.prompt] if request.prompt else words

    def setup(self, request: AgentRequest, around: Surroundings) -> AgentSetup:
        """Return a home in which nothing is asked and nothing is secret."""
        folder = f"{around.home}/.codex"
        files = {
            f"{folder}/auth.json": json.dumps(_login(around), indent=2) + "\n",
            f"{folder}/config.toml": _config(request, around),
            f"{folder}/AGENTS.md": instructions(around),
        }
        return AgentSetup(files=files)

    def sessions(self, files: Iterable[KeptFile]) -> Sequence[Session]:
        """Return one session for each transcript, called like the first thing that was said in it."""
        found = []
        for file in files:
            match = SESSION.fullmatch(file.path)
            if match is not None and (title := _first_words(file.head)) is not None:
                found.append(Session(match[1], title, file.modified_at, began_at(file.head)))
        return found


def _login(around: Surroundings) -> dict[str, Any]:
    if around.grant == KEY_GRANT:
        return {"OPENAI_API_KEY": KEY}
    tokens = {
        "id_token": identity(around.metadata),
        "access_token": ACCESS,
        "refresh_token": REFRESH,
        "account_id": around.metadata.get("account", ""),
    }
    now = around.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": now}


def _config(request: AgentRequest, around: Surroundings) -> str:
    """Return config.toml. JSON's strings are TOML's too (TOML 1.0, basic strings)."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in _liked(around).items()]
    lines += [
        f"approval_policy = {json.dumps('never' if request.acts_freely else 'untrusted')}",
        'sandbox_mode = "danger-full-access"  # the run is one; there is none within it',
        "check_for_update_on_startup = false",
        'cli_auth_credentials_store = "file"',
        "",
        "[analytics]",
        "enabled = false",
        "",
        "[features]",
        "plugins = false",
        "",
        "[shell_environment_policy]",
        'inherit = "all"  # the way to the proxy is in variables',
        "ignore_default_excludes = true",
        "",
        f"[projects.{json.dumps(around.workspace)}]",
        'trust_level = "trusted"',
    ]
    for name, url in around.mcp.items():
        lines += ["", f"[mcp_servers.{json.dumps(name)}]", f"url = {json.dumps(url)}"]
    return "\n".join(lines) + "\n"


def _liked(around: Surroundings) -> dict[str, str]:
    try:
        found = tomllib.loads(around.host_files.get(CONFIG, b"").decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}
    pairs = ((name, found.get(name)) for name in WORDS)
    return {name: value for name, value in pairs if isinstance(value, str) and _WORD.fullmatch(value)}


def _first_words(head: bytes) -> str | None:
    """Return what the user said first; None for a file in which nothing was said."""
    for line in head.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # a run wrote it
            continue
        payload = entry.get("payload") if isinstance(entry, dict) else None
        if isinstance(payload, dict) and payload.get("type") == "message" and payload.get("role") == "user":
            parts = payload.get("content") if isinstance(payload.get("content"), list) else []
            texts = [part.get("text") for part in parts or () if isinstance(part, dict)]
            own = [text for text in texts if isinstance(text, str) and not text.startswith(_NOT_THE_USERS)]
            if own:
                return own[0][:200]
    return None
