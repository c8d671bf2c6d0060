from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from moat.api.agents import AgentRequest, AgentSetup, Beside, Surroundings
from moat.api.container import Mount
from moat.api.errors import UsageError
from moat.api.runs import HostPort, McpServer, NetworkPolicy, RunSpec, Worktree
from moat.api.services import Service
from moat.runs.agent import beside, relayed, with_agent, with_image
from moat.runs.begin import BEGIN
from moat.runs.plan import plan

from core.runs.plans import WORK, a_spec, some_facts
from core.testing.test_agents import Pal

AROUND = Surroundings("/home/moat", "/workspace", ("pal",), datetime(2030, 1, 1, tzinfo=UTC), "example", ("example",))
KEPT = Mount(WORK, "/home/moat/.pal")


class Busy(Pal):
    """An agent that wants a bit of everything."""

    dependencies = ("node@22", "npm:@example/pal")
    post_build = "pal --version"
    hosts = ("api.example.com",)

    def setup(self, request: AgentRequest, around: Surroundings) -> AgentSetup:
        del request
        return AgentSetup({"PAL": "1", "QUIET": "1"}, {f"{around.home}/.pal.json": "{}"})


def made(spec: RunSpec, *mounts: Mount) -> RunSpec:
    return with_agent(spec, Busy(), AgentRequest("hi"), AROUND, mounts)


def test_the_agent_becomes_a_run_that_says_who_asked_for_what() -> None:
    spec = made(replace(a_spec("pal"), policy=NetworkPolicy("strict", ("mine.example",))), KEPT)

    assert spec.command == ("pal", "--yes", "hi")
    assert spec.policy.allow == ("mine.example", "api.example.com")
    assert spec.mounts == (KEPT,)
    owned = [name for name, owner in spec.origins.items() if owner == "agent pal"]
    assert owned == ["env.PAL", "env.QUIET", "mount./home/moat/.pal", "allow.api.example.com", "command"]


def test_what_the_user_says_wins() -> None:
    own = Mount(Path("/srv/mine"), "/home/moat/.pal")

    spec = made(a_spec("pal", env={"QUIET": "0"}, mounts=(own,)), KEPT)

    assert spec.env == {"PAL": "1", "QUIET": "0"}
    assert spec.mounts == (own,)


def test_its_files_are_written_inside_before_it_begins() -> None:
    planned = plan(made(a_spec("pal")), some_facts())

    assert planned.sandbox.argv == ("/bin/sh", BEGIN, "pal", "--yes", "hi")
    (script,) = [text for path, text in planned.files.items() if str(path).endswith(BEGIN)]
    assert "/home/moat/.pal.json" in str(script)
    assert planned.origins[BEGIN] == "agent pal"
    assert plan(a_spec("pal"), some_facts()).sandbox.argv == ("pal",)


def test_its_image_is_built_of_what_it_and_the_workspace_need() -> None:
    spec = with_image(replace(a_spec("pal"), dependencies=("apt:jq",), post_build="echo mine"), Busy())

    assert spec.dependencies == ("apt:jq", "node@22", "npm:@example/pal")
    assert spec.post_build == "pal --version\necho mine"
    assert spec.origins == {"dependency.node@22": "agent pal", "dependency.npm:@example/pal": "agent pal"}


def test_a_version_of_a_language_that_the_user_chose_stays() -> None:
    assert with_image(replace(a_spec("pal"), dependencies=("node@24",)), Busy()).dependencies == (
        "node@24",
        "npm:@example/pal",
    )


def test_another_version_of_the_agent_itself_cannot_be_had_beside_it() -> None:
    with pytest.raises(UsageError, match=r"the image of pal: .* are two versions of one thing"):
        with_image(replace(a_spec("pal"), dependencies=("npm:@example/pal@1",)), Busy())


def test_mcp_servers_are_found_at_the_proxys_own_address() -> None:
    servers = (McpServer("notes", "https://mcp.example.com/mcp"),)

    assert relayed(servers) == {"notes": "http://127.0.0.1:19080/mcp/notes"}


def test_an_agent_is_told_what_its_run_has_beside_the_workspace() -> None:
    mounts = (Mount(Path("/a"), "/data", read_only=False), Mount(Path("/b"), "/docs", read_only=True))
    spec = RunSpec(
        Path("/w"),
        ("pal",),
        mounts=mounts,
        volumes={"cache": "/cache"},
        hidden={"/workspace": (".env",), "/data": ("x",)},
        services=(Service("db", "postgres:17", 5432),),
        host_ports=(HostPort(5433), HostPort(6379, "redis")),
        ports={"web": 3000},
        worktree=Worktree(Path("/r"), Path("/r/x"), "fix"),
    )

    assert beside(spec) == Beside(
        branch="fix",
        shared=("/data",),
        shown=("/docs",),
        lasting=("/cache",),
        hides=True,
        services={"db": 5432},
        host_ports=("host.moat.internal:5433", "redis.host.moat.internal:6379"),
        ports={"web": 3000},
    )
    assert beside(RunSpec(Path("/w"), ("pal",), hidden={"/data": ("x",)})) == Beside()
