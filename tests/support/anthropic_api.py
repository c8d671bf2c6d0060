"""Anthropic's API and token endpoint as Claude Code knows them: messages as event streams, a login that is renewed.

    "RUN: command"     a turn of the tool Bash, then what it said       "LOOK UP"    a turn of the MCP tool
    anything else      "hello, you said: …"

Answers 401 unless the real credential arrives, and never takes a key and a login together.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from support.vendors import Vendor, events

HOSTS = ("api.anthropic.com", "platform.claude.com")
KEY = "sk-ant-api03-s3cr3t"
TOOLS = {"RUN: ": "Bash", "LOOK UP": "mcp__notes__lookup"}


@dataclass
class Anthropic(Vendor):
    """newest: which pair of tokens is good, each renewed once for the next, unless it has ended before.

    said: what each message held, whole. shown: the credentials that were sent.
    """

    hosts: tuple[str, ...] = HOSTS
    newest: int = 1
    ended: int = 0
    is_revoked: bool = False
    prompts: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list, repr=False)
    shown: list[str] = field(default_factory=list, repr=False)

    @property
    def access(self) -> str:
        return f"sk-ant-oat01-s3cr3t-{self.newest}"

    @property
    def refresh(self) -> str:
        return f"sk-ant-ort01-s3cr3t-{self.newest}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Route by host and path."""
        if request.host.startswith("platform."):
            return await self._token(request)
        if not self._knows(request):
            return _error(401, "authentication_error", "invalid bearer token")
        if request.path == "/v1/messages":
            return await self._message(request)
        if request.path.startswith("/api/oauth/"):
            return _error(403, "permission_error", "OAuth token does not meet scope requirement user:profile")
        return _error(404, "not_found_error", "there is no such thing")

    async def _token(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        wanted = {"grant_type": "refresh_token", "refresh_token": self.refresh}
        if self.is_revoked or request.path != "/v1/oauth/token" or not wanted.items() <= asked.items():
            return web.json_response({"error": "invalid_grant", "error_description": "not valid"}, status=400)
        self.newest += 1
        pair = {"access_token": self.access, "refresh_token": self.refresh}
        more = {"token_type": "Bearer", "expires_in": 28800, "scope": "user:inference user:profile"}
        return web.json_response(pair | more | {"account": {"uuid": "1", "email_address": "a@example.com"}})

    def _knows(self, request: web.Request) -> bool:
        """Whether a request carries the key, or the newest login with its beta; both together are nobody's."""
        key, login = request.headers.get("x-api-key"), request.headers.get("Authorization")
        self.shown += [value for value in (key, login) if value]
        betas = ",".join(request.headers.getall("anthropic-beta", []))
        if login is not None:
            is_known = login == f"Bearer {self.access}" and key is None and "oauth-2025-04-20" in betas
            return is_known and self.newest > self.ended and not self.is_revoked
        return key == KEY and not self.is_revoked

    async def _message(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if "messages" not in asked:
            return _error(400, "invalid_request_error", "messages: Field required")
        if self.failures:
            return _error(self.failures.pop(0), "overloaded_error", "Overloaded")
        self.said.append(json.dumps(asked["messages"]))
        blocks = _turn(asked, self.prompts)
        model = str(asked["model"])
        if not asked.get("stream"):
            return web.json_response({**_head(model), "content": blocks, "stop_reason": _reason(blocks)})
        return await events(request, *_stream(model, blocks))


def _turn(asked: dict[str, Any], prompts: list[str]) -> list[dict[str, Any]]:
    """Return what is answered: a text, or the use of a tool."""
    parts = _last_parts(asked["messages"])
    if results := [part for part in parts if part["type"] == "tool_result"]:
        return [{"type": "text", "text": f"the tool said: {_plain(results[-1]['content'])}"}]
    texts = [str(part["text"]) for part in parts if part["type"] == "text"]
    texts = [text for text in texts if "<system-reminder>" not in text] or [""]
    text = next((text for text in texts if text.startswith(tuple(TOOLS))), texts[0])
    prompts.append(text)
    names = {tool["name"] for tool in asked.get("tools", ())}
    for mark, tool in TOOLS.items():
        if mark in text and tool in names:
            arguments = {"command": text.partition(mark)[2], "description": "as asked"} if tool == "Bash" else {}
            return [{"type": "tool_use", "id": f"toolu_{len(prompts)}", "name": tool, "input": arguments}]
    return [{"type": "text", "text": f"hello, you said: {text}"}]


def _last_parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the user's side said since the last answer: the prompt first, then what Claude Code adds."""
    last = max((at for at, each in enumerate(messages) if each["role"] == "assistant"), default=-1)
    found: list[dict[str, Any]] = []
    for message in messages[last + 1 :]:
        content = message["content"]
        found += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return found


def _plain(content: object) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def _reason(blocks: list[dict[str, Any]]) -> str:
    return "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"


def _head(model: str) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5}
    # Each its own: Claude Code takes messages of one id for parts of one, and puts them together when it resumes.
    own = {"id": f"msg_{uuid.uuid4().hex}", "model": model, "usage": usage}
    return {"type": "message", "role": "assistant", "content": [], "stop_reason": None, "stop_sequence": None, **own}


def _stream(model: str, blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of one message (docs.anthropic.com/en/docs/build-with-claude/streaming)."""
    sent: list[dict[str, Any]] = [{"type": "message_start", "message": _head(model)}]
    for index, block in enumerate(blocks):
        is_tool = block["type"] == "tool_use"
        empty = {**block, "input": {}} if is_tool else {"type": "text", "text": ""}
        part = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])} if is_tool else {
            "type": "text_delta", "text": block["text"]}  # fmt: skip
        sent.append({"type": "content_block_start", "index": index, "content_block": empty})
        sent.append({"type": "content_block_delta", "index": index, "delta": part})
        sent.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": _reason(blocks), "stop_sequence": None}
    return [*sent, {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}}, {"type": "message_stop"}]


def _error(status: int, kind: str, message: str) -> web.Response:
    headers = {"Retry-After": "0"} if status in (429, 529) else {}
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return web.json_response(body, status=status, headers=headers)
