"""Where the real agents run: an installation whose internet is a vendor's stand-in, with the programs from npm.

bubblewrap finds them on the user's PATH; with docker an image has them, under the name that moat looks for.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pytest
from moat.api import AgentProvider
from moat.config.dependencies import checked_dependencies
from moat.runs.recipe import make_recipe
from support.docker_place import docker
from support.inside import BROUGHT
from support.installation import Done, Installation, installation
from support.memory import beside, running, where_held
from support.places import IMAGE
from support.terminal import Terminal
from support.vendors import MCP_HOST, MCP_TOKEN, Vendor

V = TypeVar("V", bound=Vendor)
PROGRAMS = BROUGHT / "agents" / "node_modules" / ".bin"
RUNTIMES = (
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
)
# What a shell inside finds of a secret, in any file that it can read and the environment of any process.
LOOK = "grep -rls 's3cr[3]t' /home /etc /workspace /tmp /run /proc/[0-9]*/environ /proc/[0-9]*/cmdline || echo none"
# The programs themselves, with what lies beside them: what npm puts on the PATH is in one case a script of Node's.
NATIVE = {
    "claude": ("@anthropic-ai/claude-code-linux-*", "claude"),
    "codex": ("@openai/codex-linux-*/vendor/*", "bin/codex"),
}
MCP = {"mcp": [{"name": "notes", "url": f"https://{MCP_HOST}/mcp", "grant": "github"}]}


@dataclass
class Stage(Generic[V]):
    """moat, where the agents' programs are, and the vendor that they talk to."""

    moat: Installation
    vendor: V
    runtime: str

    def workspace(self, name: str, **settings: object) -> Path:
        """Make a workspace, with the MCP server in its moat.yaml."""
        return self.moat.file(f"{name}/moat.yaml", json.dumps({**MCP, **settings})).parent

    def run(self, *arguments: str | Path) -> Done:
        """Run moat to its end."""
        return self.moat.run(*arguments, timeout_s=60)

    def said(self, *arguments: str | Path) -> str:
        """Run an agent, expect exit 0 and return what it answered."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{done.stdout.decode()}\n{done.stderr.decode()}\n{self.vendor.log}"
        return done.stdout.decode()

    def assert_kept_clean(self) -> None:
        """Fail when a secret stands in what an agent keeps."""
        kept = [path for path in (self.moat.home / ".moat-sessions").rglob("*") if path.is_file()]
        assert kept
        assert [path for path in kept if b"s3cr3t" in path.read_bytes()] == []


def assert_a_session_is_found_by_every_name(stage: Stage[V], agent: str, work: Path) -> None:
    """Go on with the session of the run `first` by all that names it, until that run is gone; others are told."""
    run_id = next(each["run_id"] for each in json.loads(stage.moat.ok("list", "--json")) if each["name"] == "first")
    begun = [each for each in json.loads(stage.moat.ok("sessions", work, "--json")) if "by-the-agent" in each["title"]]
    session = begun[0]["id"]
    elsewhere = stage.workspace("elsewhere")

    for reference in ("first", run_id[:9], session, session[:-3]):
        answer = stage.said(agent, work, "--resume", reference, "-p", f"by the name {reference}")
        assert f"by the name {reference}" in answer
    last = stage.said(agent, work, "--continue", "-p", "and the last one")
    told = {name: _told(stage, agent, elsewhere, name) for name in ("first", session)}
    stage.moat.ok("destroy", run_id)
    gone = _told(stage, agent, work, "first")

    assert "and the last one" in last, last
    assert json.loads(stage.moat.ok("sessions", work, "--json"))[0]["id"] == session
    way = f"hint: run: moat {agent} {work} --resume"
    assert told["first"] == [f"error: the run first worked in another workspace, {work}", f"{way} first"]
    assert told[session] == [f"error: the session {session!r} is of another workspace, {work}", f"{way} {session}"]
    problem = "error: there is no session or run called 'first' in this workspace"
    assert gone == [problem, "hint: run: moat sessions"]


HELD = "held-by-a-run"


def assert_nothing_real_is_held(stage: Stage[V], window: Terminal, placeholder: str, *real: str) -> None:
    """Have an agent that somebody talks to start a program, and look into every process of its run meanwhile.

    placeholder: what an agent does hold; real: what none may, nor a file that it has mapped.
    """
    window.say(f"RUN: sh -c 'while :; do sleep 1; done' {HELD}", lambda: running(HELD) != [])
    pids = beside(running(HELD)[0])
    worker = json.loads(stage.moat.ok("proxy", "status", "--json"))["worker_pid"]

    assert len(pids) >= 3  # the agent, what it started, the gate
    assert where_held(pids, *real) == []
    assert where_held(pids, placeholder) != []
    assert where_held([worker], *real) != []  # so it would have been found


def _told(stage: Stage[V], agent: str, work: Path, reference: str) -> list[str]:
    done = stage.run(agent, work, "--yes", "--resume", reference, "-p", "x")
    assert done.returncode == 2
    return done.stderr.decode().splitlines()[-2:]


@contextlib.contextmanager
def staged(runtime: str, vendor: V, agent: AgentProvider) -> Iterator[Stage[V]]:
    """Make a stage for one agent; with docker, its image too."""
    with contextlib.ExitStack() as stack:
        moat = stack.enter_context(installation(PATH=f"{PROGRAMS}:{BROUGHT}/node/bin:/usr/bin:/bin"))
        if runtime == "docker":
            stack.enter_context(_image_of(agent))
        moat.configure({"runtime": runtime, "image": IMAGE, "upstream": vendor.settings(moat.home)})
        moat.grant("github", MCP_TOKEN)
        yield Stage(moat, vendor, runtime)


@contextlib.contextmanager
def _image_of(agent: AgentProvider) -> Iterator[None]:
    """Make the image that moat would build, of the program that was brought: what builds is tested elsewhere."""
    base = docker("image", "inspect", "--format", "{{.Id}}", IMAGE)
    tag = make_recipe(checked_dependencies(agent.dependencies), IMAGE, base, agent.post_build).tag
    folder, program = NATIVE[agent.program]
    (found,) = (BROUGHT / "agents" / "node_modules").glob(folder)
    with tempfile.TemporaryDirectory(prefix="moat-agent-") as scratch:
        link = Path(scratch) / agent.program
        link.symlink_to(f"/opt/{agent.program}/{program}")
        made = docker("create", IMAGE, "true")
        docker("cp", str(found), f"{made}:/opt/{agent.program}")
        docker("cp", str(link), f"{made}:/usr/local/bin/{agent.program}")
        docker("commit", made, tag)
        docker("rm", made)
    try:
        yield
    finally:
        docker("rmi", tag)
