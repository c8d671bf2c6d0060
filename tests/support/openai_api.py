"""OpenAI's and ChatGPT's API and token endpoint as Codex knows them: responses over WebSocket first, else as events.

    "RUN: command"     a turn of the shell, then what it said       "LOOK UP"    a turn of the MCP tool
    anything else      "hello, you said: …"

Answers 401 unless the real credential arrives.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from support.vendors import Vendor, events

HOSTS = ("chatgpt.com", "api.openai.com", "auth.openai.com")
KEY = "sk-s3cr3t-of-openai"
ACCOUNT = "acct-4711"
USED_UP = -429


@dataclass
class OpenAI(Vendor):
    """newest: which pair of tokens is good, each renewed once for the next, unless it has ended before.

    said: what each request held, whole. shown: the credentials that were sent. has_websockets: else 426.
    bodies: of requests without a WebSocket, as they came: their coding and their bytes.
    """

    hosts: tuple[str, ...] = HOSTS
    newest: int = 1
    ended: int = 0
    is_revoked: bool = False
    has_websockets: bool = True
    said: list[str] = field(default_factory=list, repr=False)
    shown: list[str] = field(default_factory=list, repr=False)
    bodies: list[tuple[str, bytes]] = field(default_factory=list, repr=False)
    _sockets: list[web.WebSocketResponse] = field(default_factory=list, repr=False)

    @property
    def access(self) -> str:
        return f"access-s3cr3t-{self.newest}"

    @property
    def refresh(self) -> str:
        return f"refresh-s3cr3t-{self.newest}"

    def end_token(self) -> None:
        """Take the newest access token back, and end what was opened with it."""
        self.ended = self.newest

        async def close() -> None:
            for socket in self._sockets:
                await socket.close()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)

    def login(self) -> str:
        """Return an auth.json of Codex's."""
        claims = {"https://api.openai.com/auth": {"chatgpt_plan_type": "pro", "chatgpt_account_id": ACCOUNT}}
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        tokens = {"id_token": f"e30.{payload}.x", "access_token": self.access, "refresh_token": self.refresh}
        return json.dumps({"auth_mode": "chatgpt", "tokens": {**tokens, "account_id": ACCOUNT}})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Route by host and path."""
        if request.host.startswith("auth."):
            return await self._token(request)
        if not self._knows(request):
            return _error(401, "invalid_api_key", "who are you?")
        if request.path == "/backend-api/wham/accounts/check":
            return web.json_response(_accounts())
        if request.path.endswith("/responses"):
            return await self._responses(request)
        return _error(404, "not_found", "there is no such thing")

    async def _token(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        wanted = {"grant_type": "refresh_token", "refresh_token": self.refresh}
        if self.is_revoked or request.path != "/oauth/token" or not wanted.items() <= asked.items():
            return web.json_response({"error": {"code": "refresh_token_invalidated"}}, status=401)
        self.newest += 1
        tokens = json.loads(self.login())["tokens"]
        return web.json_response({name: tokens[name] for name in ("id_token", "access_token", "refresh_token")})

    def _knows(self, request: web.Request) -> bool:
        sent = request.headers.get("Authorization", "")
        self.shown.append(sent)
        if request.host.startswith("api."):
            return sent == f"Bearer {KEY}" and not self.is_revoked
        is_known = sent == f"Bearer {self.access}" and request.headers.get("ChatGPT-Account-ID") == ACCOUNT
        return is_known and self.newest > self.ended and not self.is_revoked

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return await self._socket(request) if self.has_websockets else web.Response(status=426)
        coding, body = request.headers.get("Content-Encoding", ""), await request.read()
        self.bodies.append((coding, body))
        if self.failures:
            return _failure(self.failures.pop(0))
        try:
            asked = json.loads(decoded(coding, body))
        except ValueError:
            return _error(400, "invalid_body", "the body did not come whole")
        return await events(request, *self._turn(asked))

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=True)
        await socket.prepare(request)
        self.log.append(f"WEBSOCKET {request.host.partition(':')[0]}{request.path} 101")
        self._sockets.append(socket)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            asked = json.loads(message.data)
            for event in self._turn(asked):
                await socket.send_str(json.dumps(event))
        return socket

    def _turn(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events that answer one request."""
        self.said.append(json.dumps(asked))
        number = len(self.said)
        if asked.get("generate") is False:
            return _stream(number, [])
        return _stream(number, [_item(asked, number)])


def decoded(coding: str, body: bytes) -> bytes:
    """Return what a body says. Raises ValueError unless it is one whole frame of zstd, where it is said to be coded."""
    if not coding:
        return body
    if coding != "zstd":
        raise ValueError(f"Codex sends nothing that is coded as {coding!r}")
    frame = zstd.ZstdDecompressor()
    try:
        content = frame.decompress(body)
    except zstd.ZstdError as failure:
        raise ValueError(str(failure)) from None
    if not frame.eof or frame.unused_data:
        raise ValueError("the frame is cut, or something stands behind it")
    return content


def _item(asked: dict[str, Any], number: int) -> dict[str, Any]:
    entries = asked.get("input") or []
    last = max((at for at, each in enumerate(entries) if each.get("role") == "assistant"), default=-1)
    recent = entries[last + 1 :]
    outputs = [each for each in recent if str(each.get("type", "")).endswith("_call_output")]
    if outputs:
        return _message(number, f"the tool said: {_plain(outputs[-1]['output'])}")
    texts = [_plain(each["content"]) for each in recent if each.get("role") == "user"]
    text = texts[-1] if texts else ""
    if text.startswith("RUN: "):
        return _call(asked, number, text.removeprefix("RUN: "))
    if text.startswith("LOOK UP"):
        return _lookup(asked, number)
    return _message(number, f"hello, you said: {text}")


def _call(asked: dict[str, Any], number: int, command: str) -> dict[str, Any]:
    """Return the use of the shell, in the form that is offered: a function, or a program in JavaScript."""
    names = _offered(asked)
    call = {"id": f"fc_{number}", "call_id": f"call_{number}", "status": "completed"}
    if "exec_command" in names:
        arguments = json.dumps({"cmd": command})
        return {**call, "type": "function_call", "name": "exec_command", "arguments": arguments}
    program = f"const done = await tools.exec_command({json.dumps({'cmd': command})}); text(done.output);"
    return {**call, "type": "custom_tool_call", "name": "exec", "input": program}


def _lookup(asked: dict[str, Any], number: int) -> dict[str, Any]:
    call = {"id": f"fc_{number}", "call_id": f"call_{number}", "status": "completed"}
    if "exec" in _offered(asked):
        program = "const done = await tools.mcp__notes__lookup({}); text(JSON.stringify(done));"
        return {**call, "type": "custom_tool_call", "name": "exec", "input": program}
    return {**call, "type": "function_call", "namespace": "mcp__notes", "name": "lookup", "arguments": "{}"}


def _offered(asked: dict[str, Any]) -> set[str]:
    """Return the names of all tools, wherever they are told."""
    found: set[str] = set()
    waiting: list[Any] = [asked.get("tools") or [], asked.get("input") or []]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found |= {str(value["name"])} if isinstance(value.get("name"), str) else set()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def _plain(content: object) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def _message(number: int, text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def _stream(number: int, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of one response (platform.openai.com/docs/api-reference/responses-streaming)."""
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "input_tokens_details": {"cached_tokens": 0},
             "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    response: dict[str, Any] = {"id": f"resp_{number}", "object": "response", "status": "in_progress", "output": []}
    sent: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    for index, item in enumerate(items):
        sent.append({"type": "response.output_item.added", "output_index": index, "item": item})
        sent.append({"type": "response.output_item.done", "output_index": index, "item": item})
    done = {**response, "status": "completed", "output": items, "usage": usage}
    return [*sent, {"type": "response.completed", "response": done}]


def _accounts() -> dict[str, Any]:
    account = {"id": ACCOUNT, "name": "mine", "structure": "personal", "plan_type": "pro",
               "workspace_backend_origin": "https://chatgpt.com", "account_routing_override": "us"}  # fmt: skip
    return {"accounts": [account], "default_account_id": ACCOUNT, "account_ordering": [ACCOUNT]}


def _failure(status: int) -> web.Response:
    """Return a failure; USED_UP is 429 as a subscription's user meets it."""
    if status != USED_UP:
        return _error(status, "server_overloaded", "Overloaded")
    spent = {"type": "usage_limit_reached", "message": "The usage limit has been reached", "plan_type": "pro"}
    return web.json_response({"error": spent}, status=429)


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message, "type": "error"}}, status=status)
