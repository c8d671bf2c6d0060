"""Claude Code as an agent: its command, and what it finds in a home that is new in every run.

.credentials.json   placeholders; the proxy puts the login in      settings.json   what the user likes, no secret
.claude.json        nothing to be asked at first, MCP servers      CLAUDE.md       where it is
projects/           its sessions, kept for the workspace
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
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

from moat_provider_claude.placeholders import ACCESS, KEY, KEY_VARIABLE, REFRESH, SCOPES

KEY_GRANT = "anthropic"

FAR_MS = 4_102_444_800_000  # 2100: the daemon renews the login, so Claude Code need not
SETTINGS, STATE = ".claude/settings.json", ".claude.json"
SESSION = re.compile(r"\.claude/projects/[^/]+/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl")
ENV = {
    "DISABLE_AUTOUPDATER": "1",  # the program is an image's, or read-only
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "IS_SANDBOX": "1",  # lets root skip the questions
}
# What is carried over from the user's own settings: switches and short words of these names, which can be no secret.
SWITCHES = frozenset(("alwaysThinkingEnabled", "autoCompactEnabled", "fileCheckpointingEnabled", "includeCoAuthoredBy",
                      "prefersReducedMotion", "showTurnDuration", "spinnerTipsEnabled", "syntaxHighlightingDisabled",
                      "terminalProgressBarEnabled", "verbose"))  # fmt: skip
WORDS = frozenset(("editorMode", "effortLevel", "language", "model", "outputStyle", "theme"))
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9 ._\[\]-]{0,31}")


class ClaudeCode(AgentProvider):
    """Claude Code."""

    name, summary = "claude", "Claude Code"
    program = "claude"
    grants = ("claude", "anthropic")
    dependencies = ("node@22", "apt:git", "npm:@anthropic-ai/claude-code")
    # Newer versions of npm run no scripts of packages, and this one's puts the program into its place.
    post_build = "node /usr/local/lib/node_modules/@anthropic-ai/claude-code/install.cjs\nclaude --version"
    size_mb = 200
    hosts = ("api.anthropic.com",)
    kept = (".claude/projects",)
    host_files = (SETTINGS, STATE)

    def command(self, request: AgentRequest, around: Surroundings) -> Sequence[str]:
        """Hide the variable of a key that is not the agent's own: it would be taken before the login."""
        hidden = ("env", "-u", KEY_VARIABLE) if _has_other_key(around) else ()
        words = [*hidden, *around.program]
        words += ["--dangerously-skip-permissions"] if request.acts_freely else []
        words += ["--model", request.model] if request.model else []
        words += ["--resume", request.session] if request.session else []
        words += list(request.arguments)
        return [*words, "-p", request.prompt] if request.prompt else words

    def setup(self, request: AgentRequest, around: Surroundings) -> AgentSetup:
        """Return a home in which nothing is asked and nothing is secret."""
        folder = f"{around.home}/.claude"
        files = {
            f"{around.home}/{STATE}": _text(_state(around)),
            f"{folder}/settings.json": _text(_settings(request, around)),
            f"{folder}/CLAUDE.md": instructions(around),
        }
        if around.grant != KEY_GRANT:
            files[f"{folder}/.credentials.json"] = _text(_credentials(around.metadata))
        return AgentSetup(ENV, files)

    def sessions(self, files: Iterable[KeptFile]) -> Sequence[Session]:
        """Return one session for each transcript, called like the first thing that was said in it."""
        found = []
        for file in files:
            match = SESSION.fullmatch(file.path)
            if match is not None and (title := _first_words(file.head)) is not None:
                found.append(Session(match[1], title, file.modified_at, began_at(file.head)))
        return found


def _has_other_key(around: Surroundings) -> bool:
    return around.grant != KEY_GRANT and KEY_GRANT in around.grants


def _credentials(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return a login of placeholders. It has a refresh token where the real one has: then 401 makes it renew."""
    has_refresh = metadata.get("renewable") == "yes"
    login = {
        "accessToken": ACCESS,
        "refreshToken": REFRESH if has_refresh else "",
        "expiresAt": FAR_MS,
        "scopes": (metadata.get("scopes") or SCOPES).split(),
        "subscriptionType": metadata.get("subscription") or "max",
    }
    return {"claudeAiOauth": login}


def _state(around: Surroundings) -> dict[str, Any]:
    """Return what Claude Code remembers: that it was set up, that the workspace is trusted, its MCP servers."""
    return {
        "hasCompletedOnboarding": True,
        "bypassPermissionsModeAccepted": True,
        "autoUpdates": False,
        "theme": _liked(around, STATE, WORDS).get("theme", "dark"),
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "mcpServers": {name: {"type": "http", "url": url} for name, url in around.mcp.items()},
        "projects": {around.workspace: {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
    }


def _settings(request: AgentRequest, around: Surroundings) -> dict[str, Any]:
    own = _liked(around, SETTINGS, WORDS) | _liked(around, SETTINGS, SWITCHES)
    return own | ({"skipDangerousModePermissionPrompt": True} if request.acts_freely else {})


def _liked(around: Surroundings, name: str, keys: frozenset[str]) -> dict[str, Any]:
    """Return those settings of a file of the user's that are named, and are switches or short words."""
    try:
        found = json.loads(around.host_files.get(name, b"{}"))
    except ValueError:
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if key in keys and _is_plain(value)}


def _is_plain(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and _WORD.fullmatch(value) is not None)


def _first_words(head: bytes) -> str | None:
    """Return what the user said first; None for a file in which nothing was said."""
    for line in head.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # a run wrote it
            continue
        if isinstance(entry, dict) and entry.get("type") == "user" and not entry.get("isMeta"):
            message = entry.get("message")
            content = message.get("content") if isinstance(message, dict) else None
            text = content if isinstance(content, str) else _of_parts(content)
            if text:
                return text[:200]
    return None


def _of_parts(content: object) -> str:
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text")
    return next((text for text in texts if isinstance(text, str)), "")


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
