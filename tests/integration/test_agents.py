"""A small agent of a plugin's in a real sandbox: the grant that is offered, files of its own, sessions that last."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.installation import Installation
from support.plugged import plugged
from support.terminal import terminal
from support.upstream import running_upstream

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

PLUGIN = """
from moat.api import AgentProvider, AgentSetup, Session, TokenProvider, hookimpl, instructions

class Example(TokenProvider):
    name, summary = "example", "Example's API"
    hosts = ("api.example.com",)
    variables = ("EXAMPLE_TOKEN",)
    question = "example token"

class Pal(AgentProvider):
    name, summary, program = "pal", "Pal", "pal"
    grants = ("example",)
    dependencies = ("npm:@example/pal",)
    kept = (".pal/said",)
    host_files = (".palrc",)

    def command(self, request, around):
        return [*around.program, request.session or "new", request.prompt]

    def setup(self, request, around):
        seen = around.host_files.get(".palrc", b"nothing").decode()
        return AgentSetup({"PAL": "1"}, {f"{around.home}/.pal/note": instructions(around), f"{around.home}/.own": seen})

    def sessions(self, files):
        return [Session(file.path.rpartition("/")[2], file.head.decode(), file.modified_at) for file in files]

@hookimpl
def moat_credential_providers():
    return [Example()]

@hookimpl
def moat_agent_providers():
    return [Pal()]
"""
PROGRAM = """#!/bin/sh
echo "heard $2 in $1, with $PAL and $EXAMPLE_TOKEN"
head -n 1 ~/.pal/note
cat ~/.own
echo changed > ~/.own && cat ~/.own
stat -c %a ~/.pal/note
echo "$2" >> ~/.pal/said/"${MOAT_RUN}"
"""


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"on the host\n")

    def log_message(self, format: str, *args: object) -> None:
        return


@contextlib.contextmanager
def serving_in_clear() -> Iterator[int]:
    """Serve on a port of this machine's loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def moat() -> Iterator[Installation]:
    source = "moat_provider_pal"
    with plugged("moat-provider-pal", PLUGIN, {"moat": {"pal": source}}) as made:
        made.configure({"runtime": "bubblewrap"})
        made.file("bin/pal", PROGRAM, 0o755)
        made.env["PATH"] = f"{made.home}/bin:/usr/bin:/bin"
        yield made


def test_an_agent_is_offered_a_grant_then_works_with_files_of_its_own_and_goes_on_later(moat: Installation) -> None:
    work = moat.file("work/a", "").parent
    moat.file(".palrc", "liked\n")

    with terminal(moat, "pal", str(work), "--name", "first", "-p", "hello", MOAT_NO_PROMPT="0") as window:
        offer = window.read_until("number [1]: ")
        window.type("\r")
        window.read_until("example token: ")
        window.type("tok-s3cr3t\r")
        said = window.read_until("requests")
    again = moat.ok("pal", work, "--name", "second", "--resume", "first", "-p", "more")
    sessions = json.loads(moat.ok("sessions", work, "--json"))

    assert "1. example: Example's API" in offer
    assert "heard hello in new, with 1 and moat-placeholder" in said
    assert "s3cr3t" not in said
    assert again.splitlines() == [
        "heard more in first, with 1 and moat-placeholder", "# Where you are", "liked", "changed", "600"
    ]  # fmt: skip
    assert [(each["agent"], each["id"], each["title"]) for each in sessions] == [
        ("pal", "second", "more\n"),
        ("pal", "first", "hello\n"),
    ]
    assert list(work.iterdir()) == [work / "a"]
    assert not Path(moat.home / ".pal").exists()


LIMITS = """#!/bin/sh
cat ~/.pal/note
echo kept > /shared/made && echo wrote shared
echo kept > /shown/made || echo could not write shown
echo kept > /kept/made && echo wrote kept
[ -s /workspace/hidden ] || echo hidden is empty
curl -s -m 20 http://host.moat.internal:$2/ || echo no host port
for url in https://a.example.com/ok https://b.example.com/ https://a.example.com/no; do
  curl -s -m 20 -o /dev/null -D - "$url" | grep -c -i x-moat-blocked
done
"""


def test_what_an_agent_is_told_of_its_limits_holds(moat: Installation) -> None:
    moat.grant("example", "tok-s3cr3t")
    moat.file("bin/pal", LIMITS, 0o755)
    work = moat.file("work/hidden", "s3cr3t").parent
    for name in ("shared", "shown"):
        moat.file(f"{name}/.made", "")
    with running_upstream(hosts=("a.example.com",)) as upstream, serving_in_clear() as port:
        settings = {"resolve": upstream.pins("a.example.com"), "allow_cidrs": ["127.0.0.0/8"]}
        roots = moat.file("roots.pem", upstream.ca_pem)
        moat.configure({"runtime": "bubblewrap", "upstream": {**settings, "ca_bundle": str(roots)}})
        shown = ["--mount", f"{moat.home}/shared:/shared", "--mount", f"{moat.home}/shown:/shown:ro"]
        limits = ["--policy", "strict", "--rule", "deny GET a.example.com/no", "--allow-host", "a.example.com"]
        more = ["--exclude", "hidden", "--volume", "v:/kept", "--host-port", str(port)]

        said = moat.ok("pal", work, *shown, *limits, *more, "-p", str(port))

    note, _, found = said.partition("wrote shared")
    assert "changed for good: `/shared`." in note
    assert "to be read only: `/shown`." in note
    assert "Kept for the next run here: `/kept`." in note
    assert "Parts of `/workspace` are not shown" in note
    assert f"nothing else leads to: `host.moat.internal:{port}`." in note
    assert "these hosts: `a.example.com`. Before that come these rules" in note
    assert "  - `deny GET a.example.com/no`" in note
    assert found.split("\n")[1:] == [
        "could not write shown", "wrote kept", "hidden is empty", "on the host", "0", "1", "1", ""
    ]  # fmt: skip
    assert (moat.home / "shared" / "made").read_text() == "kept\n"


def test_an_agent_joins_a_live_run_that_has_its_grant_and_program(moat: Installation) -> None:
    moat.grant("example", "tok-s3cr3t")
    shown = ["--mount", f"{moat.home}/bin:{moat.home}/bin:ro", "--runtime", "bubblewrap"]
    work = str(moat.file("work/a", "").parent)
    moat.ok("run", work, *shown, "--grant", "example", "-d", "--name", "own", "--", "sleep", "600")
    moat.ok("run", work, *shown, "-d", "--name", "none", "--", "sleep", "600")
    moat.ok("run", work, "--runtime", "bubblewrap", "--grant", "example", "-d", "--name", "bare", "--", "sleep", "600")
    try:
        keep = "mkdir -p ~/.pal/said && echo kept > ~/.own"
        moat.ok("exec", "own", "--", "sh", "-c", keep)
        said = moat.ok("join", "own", "pal", "-p", "hello").splitlines()
        refused = moat.run("join", "none", "pal", "-p", "hello")
        absent = moat.run("join", "bare", "pal", "-p", "hello")
        silent = moat.run("join", "own", "pal")
        unknown = moat.run("join", "own", "chum", "-p", "hello")
    finally:
        moat.ok("stop", "-t", "0", "own", "none", "bare")

    assert said == ["heard hello in new, with 1 and moat-placeholder", "# Where you are", "kept", "changed", "600"]
    assert (refused.returncode, refused.stderr.decode().splitlines()) == (
        2,
        [
            "error: none spends no credential that pal runs on (example)",
            "hint: start a run that does: moat run --grant example -- COMMAND",
        ],
    )
    assert (absent.returncode, "pal is not in this run" in absent.stderr.decode()) == (127, True)
    assert "there is no terminal to talk to pal in" in silent.stderr.decode()
    assert "no agent called 'chum' is installed; there are: claude, codex, pal" in unknown.stderr.decode()


def test_an_agent_that_joins_is_told_what_the_first_one_is(moat: Installation) -> None:
    moat.grant("example", "tok-s3cr3t")
    moat.file("bin/pal", "#!/bin/sh\ncat ~/.pal/note\n", 0o755)
    asked = {"ports": {"web": 3000}, "mcp": [{"name": "notes", "url": "https://mcp.example.com/mcp"}]}
    work = moat.file("work/moat.yaml", json.dumps(asked)).parent
    moat.file("work/hidden", "s3cr3t")
    moat.file("shared/.made", "")
    shown = ["--mount", f"{moat.home}/bin:{moat.home}/bin:ro", "--mount", f"{moat.home}/shared:/shared"]
    limits = ["--policy", "strict", "--rule", "deny GET a.example.com/no", "--allow-host", "a.example.com"]
    flags = [*shown, *limits, "--exclude", "hidden", "--volume", "v:/kept", "--host-port", "db=5432", "--yes"]

    first = moat.ok("pal", work, *flags, "-p", "x")
    moat.ok("run", work, *flags, "--grant", "example", "-d", "--name", "own", "--", "sleep", "600")
    try:
        joined = moat.ok("join", "own", "pal", "-p", "x")
        moat.ok("exec", "own", "--", "rm", "-r", "/home/moat/.pal")
        for plan in (moat.home / ".moat" / "runs").glob("*/plan.json"):
            plan.unlink()
        without = moat.run("join", "own", "pal", "-p", "x")
    finally:
        moat.ok("stop", "-t", "0", "own")

    assert joined == first
    for told in ("`deny GET a.example.com/no`", "these hosts: `a.example.com`", "`/shared`", "`/kept`", "`3000 (web)`",
                 "`db.host.moat.internal:5432`", "not shown", "MCP server `notes`: http://"):  # fmt: skip
        assert told in joined
    assert (without.returncode, "deny GET" in without.stdout.decode()) == (0, False)
    assert "the plan of own cannot be read" in without.stderr.decode()


def test_without_a_terminal_the_grants_to_choose_from_are_told(moat: Installation) -> None:
    done = moat.run("pal", moat.file("work/a", "").parent, "-p", "hello")

    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "error: pal has no credential to run on",
        "hint: run: moat grant example",
    ]
