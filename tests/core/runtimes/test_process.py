from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, Sandbox, SandboxSpec, Stdio
from moat.runtimes.process import Process, environment

PROXY = "http://moat:s3cr3t@127.0.0.1:4711"
TICKET = DoorTicket("run_1", Path("/nowhere"), "", PROXY)


def a_spec(workspace: Path, *argv: str) -> SandboxSpec:
    env = {"PATH": os.defpath, "HOME": "/home/moat", "HTTPS_PROXY": "http://127.0.0.1:19080"}
    return SandboxSpec("run_1", "calm-otter", argv, env, (Mount(workspace, "/workspace"),), "/workspace", "/home/moat")


async def run(spec: SandboxSpec) -> tuple[int, str]:
    with tempfile.TemporaryFile() as file:
        sandbox = await launch(spec, file.fileno())
        code = await sandbox.wait()
        await sandbox.close()
        file.seek(0)
        return code, file.read().decode()


async def launch(spec: SandboxSpec, descriptor: int) -> Sandbox:
    return await Process().launch(spec, TICKET, Stdio(descriptor, descriptor, descriptor), _nothing)


async def _nothing(container_id: str) -> None:
    del container_id


async def test_command_runs_in_the_workspace_and_its_code_is_kept(tmp_path: Path) -> None:
    assert await run(a_spec(tmp_path, "sh", "-c", "pwd; exit 3")) == (3, f"{tmp_path}\n")


async def test_proxy_is_the_one_with_the_token(tmp_path: Path) -> None:
    assert await run(a_spec(tmp_path, "sh", "-c", "echo $HTTPS_PROXY")) == (0, f"{PROXY}\n")


async def test_home_is_its_own_holds_our_files_and_goes_away(tmp_path: Path) -> None:
    (tmp_path / "curlrc").write_text("proxy")
    spec = a_spec(tmp_path, "sh", "-c", "cat $HOME/.curlrc; echo; echo $HOME")
    spec = replace(spec, mounts=(*spec.mounts, Mount(tmp_path / "curlrc", "/home/moat/.curlrc", read_only=True)))

    code, out = await run(spec)

    text, home = out.split()
    assert (code, text) == (0, "proxy")
    assert not await asyncio.to_thread(Path(home).exists)


def test_paths_inside_become_paths_outside() -> None:
    mounts = (Mount(Path("/src"), "/workspace"), Mount(Path("/m/inside/ca.pem"), "/etc/moat/ca.pem", read_only=True))
    env = {"CA": "/etc/moat/ca.pem", "SUB": "/workspace/x", "NEAR": "/workspaces", "HOME": "/home/moat"}
    env |= {"JAVA_TOOL_OPTIONS": "-Dtrust=/etc/moat/ca.pem -Dnear=/workspaces -Dx=/workspace/x -Dhttps.proxyPort=19080"}
    spec = replace(a_spec(Path("/src"), "true"), mounts=mounts, env=env)

    assert environment(spec, PROXY, Path("/tmp/h")) == {
        "CA": "/m/inside/ca.pem",
        "SUB": "/src/x",
        "NEAR": "/workspaces",
        "HOME": "/tmp/h",
        "JAVA_TOOL_OPTIONS": "-Dtrust=/m/inside/ca.pem -Dnear=/workspaces -Dx=/src/x -Dhttps.proxyPort=4711",
    }


async def test_missing_command_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SandboxFailed, match="no-such-command cannot be started"):
        await run(a_spec(tmp_path, "no-such-command"))


async def test_closing_ends_the_command_and_its_children(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    program = "import os, time; os.fork(); print('here', flush=True); time.sleep(600)"
    sandbox = await launch(a_spec(tmp_path, sys.executable, "-c", program), writer)
    os.close(writer)
    assert os.read(reader, 4) == b"here"

    await sandbox.close()
    await sandbox.close()

    while await asyncio.to_thread(os.read, reader, 100):
        pass  # the end: nobody holds the pipe any more
    os.close(reader)
    assert await sandbox.wait() == 128 + signal.SIGTERM


async def test_it_says_what_it_is_worth() -> None:
    assert "no isolation" in (await Process().readiness("")).detail
    assert not Process.sealed
