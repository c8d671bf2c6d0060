"""The audit of real runs: what is in it, that it is whole, and that a kill at any time leaves a part that is."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moat.audit.heads import public_key_of
from moat.audit.reading import AuditReader
from moat.audit.verify import Pin, Report
from moat.daemon.audit_key import AuditKeys
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running, stop
from moat.daemon.process import start_time
from moat.daemon.protocol import RegisterRequest
from moat.paths import Home
from support.installation import Installation, installation
from support.living import SECRET, a_sealed_run, ended_after, granted, killed, served, until
from support.upstream import Upstream, running_upstream

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]
API = "https://api.github.com"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream(authorization=f"Bearer {SECRET}") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    with ended_after(granted(tmp_path / "home", upstream)) as home:
        yield home


def entries(home: Home, chain: str = "installation") -> list[tuple[str, dict[str, Any]]]:
    with AuditReader(home.audit) as reader:
        return [(entry.kind, json.loads(entry.facts)) for entry in reader.entries(chain)]


def kinds(home: Home, chain: str = "installation") -> list[str]:
    return [kind for kind, _ in entries(home, chain)]


def verified(home: Home) -> Report:
    secret = AuditKeys(home, {"MOAT_KEYRING_BACKEND": "file"}).look()
    assert secret is not None
    with AuditReader(home.audit) as reader:
        return reader.verify(Pin(public_key_of(secret.seed), secret.anchor))


async def test_a_run_goes_on_in_the_same_chain_under_the_daemon_after_a_killed_one(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path, policy="strict") as sealed:
        run_id = sealed.made.run_id
        await served(sealed)
        before = entries(home, run_id)  # a first use is there as soon as its request is answered
        assert await sealed.request("https://evil.example/") == "000"
        health = client.health()
        killed(health.pid)
        await until(lambda: start_time(health.worker_pid) is None)  # or it might answer once more
        killed_at = verified(home)
        client = ensure_running(home)
        await served(sealed)
        assert client.end(sealed.made.auth_token, 0).state == "stopped"
        client.seal()
    report = verified(home)

    assert before[0][0] == "started"
    assert ("used", {"grant": "github", "authority": API, "via": "connect"}) in [
        (kind, {name: value for name, value in facts.items() if name != "tunnel"}) for kind, facts in before
    ]
    assert killed_at.is_whole
    assert report.faults == ()
    assert report.unsealed == 0
    seen = kinds(home, run_id)
    assert seen[: len(before)] == [kind for kind, _ in before]
    assert "taken-over" in seen
    assert (seen[-1], seen.count("ended"), "used" in seen[len(before) :]) == ("ended", 1, True)
    starts = [facts["after"] for kind, facts in entries(home) if kind == "daemon-started"]
    assert starts == ["the first start", "a kill, or a loss of power"]


async def test_what_the_run_may_from_now_on_and_what_was_not_let_out_is_entered(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path, policy="strict") as sealed:
        run_id, token = sealed.made.run_id, sealed.made.auth_token
        assert await sealed.request("https://evil.example/") == "000"
        assert await sealed.request("https://evil.example/") == "000"
        client.register(RegisterRequest(run_id, grants=("github",), runtime="bubblewrap", auth_token=token))
        client.end(token, 0)
        client.seal()

    denials = [denial for kind, facts in entries(home, run_id) if kind == "denied" for denial in facts["denials"]]
    assert {denial["authority"] for denial in denials} == {"https://evil.example"}
    assert sum(denial["count"] for denial in denials) >= 2
    (changed,) = [facts for kind, facts in entries(home) if kind == "policy"]
    assert (changed["run"], changed["policy"], changed["grants"]) == (run_id, "permissive", ["github"])
    assert kinds(home, run_id).count("resolved") == 2
    assert verified(home).faults == ()


def test_a_log_taken_away_while_the_daemon_was_away_is_found_for_ever(home: Home) -> None:
    client = ensure_running(home)
    made = client.register(RegisterRequest("run_00000000000a", needs_door=False))
    client.end(made.auth_token, 0)
    stop(home)
    assert verified(home).faults == ()
    for path in home.root.glob("audit.db*"):
        path.unlink()
    ensure_running(home).seal()
    stop(home)
    ensure_running(home).seal()

    report = verified(home)

    assert report.faults
    assert (report.faults[0].chain, "taken away" in report.faults[0].problem) == ("installation", True)


def test_garbage_in_place_of_the_log_keeps_no_daemon_from_starting(home: Home) -> None:
    home.audit.write_bytes(b"garbage" * 999)

    made = ensure_running(home).register(RegisterRequest("run_00000000000a", needs_door=False))
    ensure_running(home).end(made.auth_token, 0)

    assert home.audit.with_name("audit.db.broken").exists()


@pytest.fixture
def installed(upstream: Upstream) -> Iterator[Installation]:
    with installation() as inst:
        (inst.home / "roots.pem").write_text(upstream.ca_pem)
        settings = {"ca_bundle": str(inst.home / "roots.pem"), "resolve": upstream.pins("api.github.com"),
                    "allow_cidrs": ["127.0.0.0/8"]}  # fmt: skip
        inst.configure({"upstream": settings})
        inst.grant("github", SECRET)
        yield inst


def test_a_user_sees_who_did_what_and_proves_it(installed: Installation) -> None:
    workspace = installed.home / "w"
    workspace.mkdir()
    (workspace / "moat.yaml").write_text("grants: [github]\n")
    ask = f"curl -s {API}/user {API}/user -o /dev/null -o /dev/null"
    installed.ok("run", "--runtime", "bubblewrap", "--name", "otter", "--yes", workspace, "--", "sh", "-c", ask)

    table = installed.ok("audit", "otter")
    assert [line.split()[3] for line in table.splitlines()[1:]] == [
        "started", "resolved", "opened", "used", "used-again", "ended"]  # fmt: skip
    assert f"github at {API} (connect, tunnel" in table
    told = json.loads(installed.ok("audit", "--json"))
    assert [each["kind"] for each in told] == [
        "daemon-started", "settings", "granted", "approved", "run-started", "run-ended"]  # fmt: skip
    started = json.loads(installed.ok("audit", "otter", "--json"))[0]["facts"]
    plan = installed.home / ".moat" / "runs" / told[4]["facts"]["run"] / "plan.json"
    assert subprocess.check_output(["sha256sum", plan], text=True).split()[0] == started["plan"]
    assert installed.run("audit", "verify").returncode == 0

    bundle = installed.home / "bundle.json"
    installed.ok("audit", "export", "otter", "-o", bundle)
    installed.ok("destroy", "otter")
    assert installed.ok("audit", "otter") == table  # the audit outlives what was kept of the run
    assert installed.ok("audit", "verify", bundle).startswith("whole: 6 entries")
    installed.ok("grant", "revoke", "github")
    assert [each["kind"] for each in json.loads(installed.ok("audit", "--json"))][-1] == "revoked"
    assert "the audit" in installed.ok("uninstall", "--yes")
    assert not (installed.home / ".moat").exists()


def test_a_client_of_the_daemon_cannot_enter_what_only_the_daemon_knows(home: Home) -> None:
    ensure_running(home)
    sock = home.daemon / "daemon.sock"
    body = json.dumps({"kind": "used", "facts": {"grant": "github"}})
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", str(sock), "-d", body,
               "http://moat/v1/audit"]  # fmt: skip

    assert subprocess.check_output(command, text=True) == "400"
    assert DaemonClient(home).health().run_count == 0
