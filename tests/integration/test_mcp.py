"""MCP servers relayed at a run's own door: the real daemon, worker and gate, a real curl inside."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moat.daemon.extras import McpServer
from moat.daemon.lifecycle import ensure_running
from moat.paths import Home
from moat.trace.network import read_exchanges
from moat.trace.store import RunStore
from support.living import SECRET, a_sealed_run, ended_after, granted
from support.upstream import Upstream, running_upstream

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]
ORIGIN = "http://127.0.0.1:19080"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
READ, DELETE = ({**CALL, "params": {"name": name}} for name in ("read", "delete"))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream(authorization=f"Bearer {SECRET}") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    with ended_after(granted(tmp_path / "home", upstream)) as home:
        yield home


def ask(path: str, *options: str, body: object = None) -> str:
    """Return a command line that prints the status of one request, then a part of its body."""
    data = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    shown = ["-w", "\\n%{http_code}\\n"]
    return f"curl -s --noproxy '*' -m 20 {shlex.join([*options, *data, *shown, ORIGIN + path])} | tail -n 1"


async def answers(home: Home, tmp_path: Path, *lines: str, **changes: object) -> tuple[str, list[str]]:
    """Return the run's id, and what lines printed in a run with the servers `demo` and `some`."""
    client = ensure_running(home)
    servers = (
        McpServer("demo", "https://api.github.com/echo", "github"),
        McpServer("some", "https://api.github.com/echo", "github", tools=("read",)),
        McpServer("moved", "https://api.github.com/redirect", "github"),
        McpServer("events", "https://api.github.com/sse", "github"),
    )
    fields: dict[str, Any] = {"grants": (), "mcp_servers": servers, **changes}
    script = "; ".join([*lines, "read forever"])
    async with a_sealed_run(home, client, tmp_path, script=script, **fields) as sealed:
        found = [(await sealed.out.readline()).decode().strip() for _ in lines]
    client.end(sealed.made.auth_token, 0)
    return sealed.made.run_id, found


async def test_a_server_gets_the_credential_that_the_run_does_not_have(
    home: Home, upstream: Upstream, tmp_path: Path
) -> None:
    run_id, found = await answers(
        home, tmp_path,
        ask("/mcp/demo", "-H", "Authorization: Bearer moat-placeholder", body=READ),
        ask("/mcp/demo?session=1", "-X", "DELETE"),
        ask("/mcp/demo/below", body=[READ, DELETE]),
        ask("/mcp/nobody", body=READ),
        ask("/mcp/demo/../../user", "--path-as-is"),
        ask("/mcp/demo/%2e%2e/user", "--path-as-is"),
    )  # fmt: skip

    assert found == ["200", "200", "200", "404", "400", "400"]
    assert [(each.method, each.path) for each in upstream.seen] == [
        ("POST", "/echo"), ("DELETE", "/echo?session=1"), ("POST", "/echo/below"),
    ]  # fmt: skip
    assert {each.header("Authorization") for each in upstream.seen} == {f"Bearer {SECRET}"}
    recorded = list(read_exchanges(RunStore(home).network(run_id)))
    assert [(each.via, each.host, each.grants) for each in recorded[:3]] == [("mcp", "api.github.com", ("github",))] * 3


async def test_only_listed_tools_are_called_alone_and_in_a_batch(
    home: Home, upstream: Upstream, tmp_path: Path
) -> None:
    _, found = await answers(
        home, tmp_path,
        ask("/mcp/some", body=READ),
        ask("/mcp/some", body=[READ, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}]),
        ask("/mcp/some", body=DELETE),
        ask("/mcp/some", body=[READ, DELETE]),
        ask("/mcp/some", "-H", "Transfer-Encoding: chunked", body=[DELETE]),
        ask("/mcp/some", "-H", "Content-Encoding: gzip", body=READ),
    )  # fmt: skip

    assert found == ["200", "200", "403", "403", "403", "415"]
    assert len(upstream.seen) == 2


async def test_a_redirect_is_told_and_not_followed(home: Home, upstream: Upstream, tmp_path: Path) -> None:
    _, found = await answers(home, tmp_path, ask("/mcp/moved", body=READ))

    assert found == ["302"]
    assert [each.path for each in upstream.seen] == ["/redirect"]


async def test_a_stream_is_relayed_as_it_comes(home: Home, upstream: Upstream, tmp_path: Path) -> None:
    first = f"curl -sN --noproxy '*' -m 20 {ORIGIN}/mcp/events | head -n 1"
    _, found = await answers(home, tmp_path, first)

    assert found == ["data: first"]  # the second event was never told to come


async def test_the_run_s_policy_holds_for_servers_too(home: Home, upstream: Upstream, tmp_path: Path) -> None:
    rules = ("deny POST api.github.com/echo/**", "deny DELETE api.github.com")
    _, found = await answers(
        home, tmp_path,
        ask("/mcp/demo", body=READ),
        ask("/mcp/demo/below", body=READ),
        ask("/mcp/demo", "-X", "DELETE"),
        network_rules=rules,
    )  # fmt: skip

    assert found[1:] == ["403", "403"]
    assert {each.method for each in upstream.seen} <= {"POST"}
    assert "/echo/below" not in [each.path for each in upstream.seen]
