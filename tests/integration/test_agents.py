"""A small agent of a plugin's in a real sandbox: the grant that is offered, files of its own, sessions that last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation
from support.plugged import plugged
from support.terminal import terminal

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


def test_without_a_terminal_the_grants_to_choose_from_are_told(moat: Installation) -> None:
    done = moat.run("pal", moat.file("work/a", "").parent, "-p", "hello")

    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "error: pal has no credential to run on",
        "hint: run: moat grant example",
    ]
