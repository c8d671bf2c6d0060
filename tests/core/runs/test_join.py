from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from moat.api.agents import AgentProvider, AgentRequest, AgentSetup, Surroundings
from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.runs.join import grant_of, join_command


class Pal(AgentProvider):
    name, summary, program = "pal", "Pal", "cat"
    grants = ("best", "other")
    dependencies = ()

    def command(self, request: AgentRequest, around: Surroundings) -> Sequence[str]:
        return [*around.program, f"{around.home}/own", f"{around.home}/sub/note"]

    def setup(self, request: AgentRequest, around: Surroundings) -> AgentSetup:
        return AgentSetup(
            {"PAL": "a b"}, {f"{around.home}/own": "new", f"{around.home}/sub/note": f"it's {request.prompt}"}
        )


def a_run(*grants: str) -> RunInfo:
    return RunInfo("run_1", "calm-otter", "docker", "permissive", grants, "/w", ("sleep",), "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(("grants", "expected"), [(("x", "other"), "other"), (("other", "best"), "best")])
def test_the_best_grant_of_the_run_is_taken(grants: tuple[str, ...], expected: str) -> None:
    assert grant_of(Pal(), a_run(*grants)) == expected


def test_a_run_without_one_is_refused_with_what_to_type() -> None:
    with pytest.raises(
        UsageError, match=r"calm-otter spends no credential that pal runs on \(best or other\)"
    ) as refused:
        grant_of(Pal(), a_run("x"))
    assert refused.value.hint == "start a run that does: moat run --grant best -- COMMAND"


def around(home: Path, *program: str) -> Surroundings:
    return Surroundings(str(home), "/workspace", program, datetime.now(UTC))


def test_files_are_made_where_there_are_none_and_variables_are_set(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("kept ")

    argv = join_command(Pal(), AgentRequest("do it"), around(tmp_path, "cat"))

    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "kept it's do it"
    assert "PAL=a b" in argv


@pytest.mark.parametrize("program", [("no-such-program",), ("sh", "/no/such/script")])
def test_a_program_that_is_not_there_is_told(tmp_path: Path, program: tuple[str, ...]) -> None:
    done = subprocess.run(
        join_command(Pal(), AgentRequest(), around(tmp_path, *program)), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr.startswith("moat: cat is not in this run: ")


def test_an_agent_without_files_is_only_started(tmp_path: Path) -> None:
    class Bare(Pal):
        def setup(self, request: AgentRequest, around: Surroundings) -> AgentSetup:
            return AgentSetup()

    surroundings = replace(around(tmp_path, "echo"))

    done = subprocess.run(
        join_command(Bare(), AgentRequest(), surroundings), capture_output=True, text=True, check=True
    )

    assert done.stdout == f"{tmp_path}/own {tmp_path}/sub/note\n"
