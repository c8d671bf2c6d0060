from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.agents import Beside
from moat.api.container import Mount
from moat.api.runs import HostPort, McpServer, NetworkPolicy, RunSpec, Worktree
from moat.api.services import Service
from moat.net.rules import parse_rule
from moat.runs.agent import beside, relayed
from moat.runs.masks import Hidden
from moat.runs.merge import FILE
from moat.runs.plan import Found, plan
from moat.runs.plan_digest import plan_text
from moat.runs.planned import Planned, read_plan

from core.runs.plans import a_spec, some_facts

A, B, PROGRAM = Path("/a"), Path("/b"), Path("/usr/bin/pal")


def a_run_with_everything() -> RunSpec:
    mounts = (Mount(A, "/data"), Mount(B, "/docs", read_only=True), Mount(PROGRAM, "/usr/bin/pal", read_only=True))
    rules = (parse_rule("deny GET a.example.com/no/**"), parse_rule("allow api.example.com"))
    return replace(
        a_spec("pal", mounts=mounts, policy=NetworkPolicy("strict", ("a.example.com",), rules)),
        volumes={"cache": "/cache"},
        hidden={"/workspace": (".env",)},
        services=(Service("db", "postgres:17", 5432),),
        host_ports=(HostPort(5433), HostPort(6379, "redis")),
        ports={"web": 3000},
        mcp=(McpServer("notes", "https://mcp.example.com/mcp", "github"),),
        origins={"mount./docs": FILE, "mount./usr/bin/pal": "agent pal", "volume.cache": FILE},
    )


def read_back(spec: RunSpec, *hidden: Hidden) -> Planned:
    paths = {path: Found(path, "folder") for path in (A, B, PROGRAM)}
    of_workspace = {"/workspace": hidden} if hidden else {}
    return read_plan(plan_text(plan(spec, some_facts(paths=paths, hidden=of_workspace, passwords={"db": "x"}))))


def test_a_plan_says_what_the_first_agent_was_told() -> None:
    spec = a_run_with_everything()

    found = read_back(spec, Hidden(".env", "file", ".env"))

    mine = replace(spec, mounts=spec.mounts[:2])  # as it is before the agent's program is added
    assert found == Planned(spec.policy, relayed(spec.mcp), False, beside(mine))
    assert found.beside.host_ports == ("host.moat.internal:5433", "redis.host.moat.internal:6379")


def test_of_a_plain_run_there_is_nothing_to_tell() -> None:
    assert read_back(a_spec("pal")) == Planned(NetworkPolicy())


def test_a_copy_and_what_it_lacks_and_a_branch_are_told() -> None:
    copied = read_back(replace(a_spec("pal"), on_a_copy=True), Hidden(".env", "file", ".env"))
    at_branch = read_back(replace(a_spec("pal"), worktree=Worktree(Path("/r"), Path("/r/x"), "fix")))

    assert (copied.works_on_a_copy, copied.beside) == (True, Beside(hides=True))
    assert at_branch.beside == Beside(branch="fix")


@pytest.mark.parametrize("change", [{"rules": ["what?"]}, {"mounted": None}, {"volumes": []}, {"mcp": [1]}])
def test_what_is_no_plan_is_refused(change: dict[str, object]) -> None:
    text = plan_text(plan(a_spec("pal"), some_facts()))

    for broken in (json.dumps(json.loads(text) | change).encode(), b"[]", b"", b"{}"):
        with pytest.raises(ValueError):  # noqa: PT011 # json's own as well
            read_plan(broken)
