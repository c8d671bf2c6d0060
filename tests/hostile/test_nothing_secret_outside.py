"""Secrets as the host shows them while a run lives: process lists, environments, the engine, moat's own files."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.installation import Installation, eventually
from support.world import World

from hostile.remains import Parts, descendants, parts_of, processes_in
from hostile.sandbox import Live, Place, live_run, statuses

SECRET, QUERY = "s3cr3t-seen-by-nobody", "s3cr3t-in-a-query"
HASH = re.compile(rb'"(?:token|nonce)_sha256": "[0-9a-f]{64}"')  # in runs.json: known again by it, spent by nobody
TOKEN = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
PLACEHOLDER = b"s3cr3t"


@dataclass(frozen=True)
class Scene:
    """A live run that has spent a credential."""

    made: Installation
    place: Place
    run: Live
    parts: Parts
    health: dict[str, int]

    def processes(self) -> list[int]:
        """Return every process of moat and of the run."""
        cli = self.run.process.pid
        ours = {cli, *descendants(cli), *processes_in(self.parts.namespace), self.parts.gate}
        return sorted(ours | {self.health["pid"], self.health["worker_pid"]})


@pytest.fixture(scope="module")
def scene(place: Place, world: World) -> Iterator[Scene]:
    """Start a run and let it spend its credential."""
    world.internet.name("api.github.com", "140.82.112.5")
    with world.installation(place.user) as made:
        made.grant("github", SECRET)
        with live_run(made, place, "--grant", "github") as run:
            target = f"GET /user?access_token={QUERY}&page=2 HTTP/1.1\r\nHost: api.github.com\r\n\r\n"
            tunnel = run.in_tunnel("api.github.com:443", target.encode())
            assert statuses(tunnel.came) == [200]
            assert SECRET.encode() in world.internet.bytes_seen
            eventually("the exchange is written down", lambda: list(made.home.glob(".moat/runs/*/network.jsonl")))
            health = json.loads(made.ok("proxy", "status", "--json"))
            yield Scene(made, place, run, parts_of(made, place, run.process.pid), health)


def test_no_argument_or_variable_of_a_process_holds_a_secret_or_a_token(scene: Scene) -> None:
    held = {pid: _read(f"/proc/{pid}/cmdline") + _read(f"/proc/{pid}/environ") for pid in scene.processes()}

    assert len(held) >= 5
    assert [pid for pid, data in held.items() if PLACEHOLDER in data] == []
    assert [pid for pid, data in held.items() if TOKEN.search(data)] == []


def test_what_runs_inside_has_the_proxy_without_a_token(scene: Scene) -> None:
    shown = scene.run.ask(do="shell", argv=["env"])["out"]
    variables = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    assert {variables[f"{name}_PROXY"] for name in ("HTTP", "HTTPS")} == {"http://127.0.0.1:19080"}
    assert {variables[f"{name}_proxy"] for name in ("http", "https")} == {"http://127.0.0.1:19080"}
    assert [name for name, value in variables.items() if "@" in value or TOKEN.search(value.encode())] == []
    assert "GH_TOKEN=" in shown


def test_the_engine_knows_no_secret_and_the_run_none_of_moats_folders(scene: Scene) -> None:
    if scene.place.runtime != "docker":
        return
    names = [f"moat-{scene.parts.run_id}", f"moat-{scene.parts.run_id}-gate"]
    agent, gate = (json.loads(_docker("inspect", name))[0] for name in names)
    told = _docker("inspect", *names) + "".join(
        _docker(*words, one["Image"])
        for one in (agent, gate)
        for words in (["history", "--no-trunc"], ["image", "inspect"])
    )

    assert "s3cr3t" not in told
    assert [line for line in agent["Config"]["Env"] if TOKEN.search(line.encode()) or "@" in line] == []
    assert [mount["Source"] for mount in gate["Mounts"] if mount["RW"]] == []
    moat = str(scene.made.home / ".moat")
    seen = [mount["Source"] for mount in agent["Mounts"] if mount["Source"].startswith(moat)]
    assert [path for path in seen if not path.startswith(f"{moat}/inside/{scene.parts.run_id}/")] == []
    assert [
        mount["Source"] for one in (agent, gate) for mount in one["Mounts"] if "docker.sock" in mount["Source"]
    ] == []
    assert (agent["HostConfig"]["Privileged"], agent["HostConfig"]["CapDrop"]) == (False, ["ALL"])


def test_no_file_of_moats_holds_the_secret_a_token_or_a_query_value(scene: Scene) -> None:
    moat = scene.made.home / ".moat"
    key = (moat / "ca" / "ca.key").read_bytes().splitlines()[1]
    texts = {path: path.read_bytes() for path in moat.rglob("*") if path.is_file() and not path.is_symlink()}

    assert [path for path, data in texts.items() if PLACEHOLDER in data] == []
    assert [path for path, data in texts.items() if key in data and path.name != "ca.key"] == []
    container = json.loads(texts[moat / "runs" / scene.parts.run_id / "run.json"])["container_id"].encode() or b"-"
    others = {path: data.replace(container, b"") for path, data in texts.items() if path.parent.name != "credentials"}
    told = {path: TOKEN.findall(HASH.sub(b"", data)) for path, data in others.items()}
    hashed = {path for path in told if path.name.startswith("audit.") or path.name == "plan.json"}  # digests, and a key
    assert [path for path, found in told.items() if found and path not in hashed] == []
    known = {digest.decode()[-65:-1] for data in texts.values() for digest in HASH.findall(data)}
    assert known
    assert [path for path in hashed for each in told[path] if hashlib.sha256(each).hexdigest() in known] == []
    assert any(b"/user" in data for path, data in texts.items() if path.name == "network.jsonl")


def test_nobody_else_can_read_or_write_moats_folder(scene: Scene) -> None:
    moat = scene.made.home / ".moat"
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in (moat, *moat.rglob("*")) if not path.is_symlink()}
    open_to_others = [path for path, mode in modes.items() if mode & 0o077 and moat / "inside" not in path.parents]

    assert stat.S_IMODE(moat.stat().st_mode) == 0o700
    assert [path for path in open_to_others if path.name != "config.yaml"] == []
    assert (modes[moat / "ca" / "ca.key"], modes[moat / "daemon" / "daemon.sock"]) == (0o600, 0o600)


def test_processes_that_hold_secrets_leave_no_core_and_show_no_memory(scene: Scene) -> None:
    for pid in (scene.health["pid"], scene.health["worker_pid"]):
        limits = _read(f"/proc/{pid}/limits").decode()

        assert re.search(r"Max core file size +0 +0 ", limits)
        assert Path(f"/proc/{pid}/mem").stat().st_uid == 0  # undumpable: root's, whoever runs it (proc(5))


def test_the_trace_tells_what_was_spent_and_no_value(scene: Scene) -> None:
    told = scene.made.ok("trace", scene.parts.run_id, "--network", "--json")
    shown = scene.made.ok("trace", scene.parts.run_id, "--network")

    assert '"github"' in told
    assert "s3cr3t" not in told + shown
    assert [character for character in shown if ord(character) < 32 and character not in "\n\t"] == []


def _read(path: str) -> bytes:
    with suppress(OSError):
        return Path(path).read_bytes()
    return b""


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout
