from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from moat.api.agents import AgentRequest, Surroundings
from moat.api.credentials import Credential
from moat.api.images import Images
from moat.api.runs import RunInfo, RunSpec
from moat.cli import agents, main, run_steps
from moat.paths import Home
from moat.plugins.manager import Plugins
from moat.runs.agent import with_image
from moat.runs.sessions import Sessions
from moat.store.credentials import CredentialStore
from moat.trace.store import RunStore

from core.plugins.plugin import a_plugin, a_provider
from core.runs.fakes import FakeRuntime
from core.runs.test_sessions import Keeper

SECRET = "s3cr3t-example"


class Pal(Keeper):
    """Can run on two grants."""

    grants: ClassVar[tuple[str, ...]] = ("example", "other")
    hosts = ("api.example.com",)


class _Engine(FakeRuntime):
    name = "engine"

    def images(self) -> Images:
        return SimpleNamespace()  # type: ignore[return-value] # it is only looked whether there are any


class Stage:
    """`moat pal` with a plugin, two runtimes and a program; what would be carried out is remembered."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.work = Home(tmp_path / "moat"), tmp_path / "work"
        self.specs: list[RunSpec] = []
        self.ways: list[Mapping[str, Any]] = []
        (tmp_path / "bin").mkdir()
        self.work.mkdir()
        self.program = tmp_path / "bin" / "pal"
        self.program.write_text("\x7fELF")
        self.program.chmod(0o755)
        self.runtimes = [FakeRuntime([]), _Engine([])]
        plugin = a_plugin(
            "pal",
            moat_agent_providers=lambda: [Pal()],
            moat_credential_providers=lambda: [a_provider("example"), a_provider("other")],
            moat_runtimes=lambda: self.runtimes,
        )
        monkeypatch.setattr(Plugins, "load", classmethod(lambda cls: cls([plugin])))
        for name, value in {
            "MOAT_HOME": self.home.root,
            "MOAT_KEYRING_BACKEND": "file",
            "MOAT_RUNTIME": "fake",
        }.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        monkeypatch.chdir(self.work)
        for module in (agents, run_steps):
            monkeypatch.setattr(module, "carry_out", self._carry_out)

    def grant(self, name: str) -> None:
        CredentialStore(self.home).save(Credential(name, SECRET, "prompt", {"known": "fact"}))

    def pal(self, *arguments: str) -> int:
        return main.run(["pal", *arguments])

    @property
    def spec(self) -> RunSpec:
        return self.specs[-1]

    def _carry_out(self, spec: RunSpec, home: Home, runtimes: object, begun: object, **way: Any) -> int:
        self.specs.append(spec)
        self.ways.append(way)
        return 7


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_an_agent_is_a_command_that_runs_its_program_on_the_grant_that_is_there(stage: Stage) -> None:
    stage.grant("other")

    assert stage.pal("-p", "do it", "--model", "big", "--allow-host", "a.example", "--", "--odd", "-p") == 7

    spec = stage.spec
    assert spec.command == (str(stage.program), "--yes", "--odd", "-p", "big", "do it")
    assert (spec.grants, spec.origins["grant.other"]) == (("other",), "agent pal")
    assert spec.policy.allow == ("a.example", "api.example.com")
    assert (spec.workspace, spec.runtime) == (stage.work, "fake")
    assert [mount.target for mount in spec.mounts] == [
        str(stage.program),
        "/home/moat/.pal/said",
        "/home/moat/.pal/more",
    ]
    assert SECRET not in repr(spec)


def test_the_best_grant_is_taken_unless_another_is_asked_for(stage: Stage) -> None:
    stage.grant("other")
    stage.grant("example")

    stage.pal("-p", "x")
    stage.pal("-p", "x", "--grant", "other", "--noyolo")

    assert [spec.grants for spec in stage.specs] == [("example",), ("other",)]
    assert ["--yes" in spec.command for spec in stage.specs] == [True, False]


def test_without_a_grant_and_anybody_to_ask_it_says_what_to_type(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage.pal("-p", "x", "--profile", "team") == 1

    said = capsys.readouterr().err
    assert "error: pal has no credential to run on" in said
    assert "hint: run: moat grant --profile team example, or: moat grant --profile team other" in said


@pytest.mark.parametrize(
    ("arguments", "problem", "hint"),
    [
        ((), "there is no terminal to talk to pal in", "run: moat pal -p PROMPT"),
        (("fix", "it's"), "'fix' is no folder", "run: moat pal -p 'fix it'\"'\"'s'"),
        (("nowhere", "-p", "x"), "'nowhere' is no folder", "name one that is there"),
        (("-p", "x", "-c", "--resume", "y"), "--continue and --resume", "use one of them"),
        (("-p", "x", "--json"), "--json goes with --dry-run only", "run: moat run --dry-run --json"),
        (("-p", "x", "-c"), "pal has no session in this workspace", "begin one: moat pal"),
        (("-p", "x", "--runtime", "zzz"), "no runtime called 'zzz'", "installed: engine, fake"),
    ],
)
def test_what_cannot_be_meant_is_told_with_what_to_type(
    stage: Stage, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], problem: str, hint: str
) -> None:
    stage.grant("example")

    assert stage.pal(*arguments) == 2

    said = capsys.readouterr().err
    assert problem in said
    assert hint in said
    assert stage.specs == []


def test_a_program_that_is_not_here_is_told_with_both_ways_out(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.grant("example")
    stage.program.unlink()

    assert stage.pal("-p", "x") == 1

    said = capsys.readouterr().err
    assert "pal is not installed here, and fake runs this machine's programs" in said
    assert "npm install -g @example/pal; or use --runtime docker" in said


def test_where_there_are_images_one_with_the_program_is_asked_for(stage: Stage) -> None:
    stage.grant("example")
    stage.program.unlink()

    stage.pal("-p", "x", "--runtime", "engine")

    assert stage.spec.command[0] == "pal"
    assert stage.spec.dependencies == with_image(stage.spec, Pal()).dependencies == ("npm:@example/pal",)


def test_a_runtime_without_a_home_of_the_runs_own_is_refused(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.grant("example")
    stage.runtimes[0] = FakeRuntime([], sealed=False)

    assert stage.pal("-p", "x") == 2

    assert "an agent needs a home of its own" in capsys.readouterr().err


def test_a_session_is_gone_on_with_by_its_id_or_as_the_last(stage: Stage) -> None:
    stage.grant("example")
    sessions = Sessions(stage.home, Pal(), stage.work)
    sessions.mounts("/home/moat")
    for number, name in enumerate(("first", "second")):
        path = sessions.folder / ".pal_said" / name
        path.write_text("said")
        os.utime(path, (number, number))

    stage.pal("-p", "x", "--continue")
    stage.pal("-p", "x", "--resume", "fir")

    assert [spec.command[2] for spec in stage.specs] == ["second", "first"]


@pytest.mark.parametrize(
    ("reference", "problem", "hint"),
    [
        ("nothing", "error: there is no session or run called 'nothing' in this workspace", "hint: run: moat sessions"),
        ("gone", "error: there is no session or run called 'gone' in this workspace", "hint: run: moat sessions"),
        ("there", "error: the run there worked in another workspace, /srv/there", "moat pal /srv/there --resume there"),
        ("run_a", "error: 'run_a' means several runs: run_aaaaaaaaaaa2", "hint: name one by its whole id"),
        ("run_b", "error: there is no session or run called 'run_b' in this workspace", "hint: run: moat sessions"),
        ("mine", "error: the run mine left no session of pal here", "hint: run: moat sessions"),
        ("ab", "error: several sessions begin with 'ab' in this workspace", "hint: run: moat sessions"),
        ("zz", "error: the session 'zz' is of another workspace, /srv/there", "moat pal /srv/there --resume zz"),
    ],
)
def test_what_names_no_session_is_told_in_a_line_with_what_to_type(
    stage: Stage, capsys: pytest.CaptureFixture[str], reference: str, problem: str, hint: str
) -> None:
    stage.grant("example")
    for number, (name, place) in enumerate((("mine", str(stage.work)), ("there", "/srv/there")), 1):
        times = ("2020-01-01T10:00:00+00:00", "2020-01-01T11:00:00+00:00")
        run = RunInfo(f"run_aaaaaaaaaaa{number}", name, "fake", "strict", (), place, ("pal",), times[0])
        RunStore(stage.home).write(replace(run, state="stopped", ended_at=times[1]))
    for folder, names in ((stage.work, ("ab1", "ab2")), (Path("/srv/there"), ("zz9",))):
        sessions = Sessions(stage.home, Pal(), folder)
        sessions.mounts("/home/moat")
        for name in names:
            (sessions.folder / ".pal_said" / name).write_text("said")

    assert stage.pal("-p", "x", "--resume", reference) != 0

    told = capsys.readouterr().err
    assert problem in told
    assert hint in told
    assert len(told.splitlines()) == 2


def test_moat_yaml_says_how_an_agent_works_and_the_command_line_wins(stage: Stage) -> None:
    stage.grant("example")
    (stage.work / "moat.yaml").write_text("agents: {pal: {model: small, yolo: false}}")

    stage.pal("-p", "x")
    stage.pal("-p", "x", "--model", "big")
    stage.pal("-p", "x", "--ignore-file")

    assert [spec.command[1:] for spec in stage.specs] == [("small", "x"), ("big", "x"), ("--yes", "x")]


def test_moat_run_starts_the_agent_that_moat_yaml_names_once_the_user_agrees(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.grant("example")
    (stage.work / "moat.yaml").write_text("agent: pal")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))

    assert main.run(["run"]) == 2
    assert main.run(["run", "--yes"]) == 7
    assert main.run(["run", "--", "make"]) == 7

    assert "start the agent pal, and spend your credential that it runs on" in capsys.readouterr().err
    assert [(spec.agent, spec.command[0]) for spec in stage.specs] == [("pal", str(stage.program)), ("", "make")]


def test_a_file_that_needs_a_yes_is_refused_with_the_command_that_was_typed(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.grant("example")
    (stage.work / "moat.yaml").write_text("grants: [other]")
    monkeypatch.setattr("sys.argv", ["moat", "pal", "-p", "do it", "--", "--odd"])

    assert stage.pal("-p", "do it", "--", "--odd") == 2

    assert "hint: if you want all of that: moat pal -p 'do it' --yes -- --odd; to run" in capsys.readouterr().err
    assert stage.specs == []


def test_an_agent_of_moat_yaml_that_is_not_installed_is_told(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    (stage.work / "moat.yaml").write_text("agent: chum")

    assert main.run(["run", "--yes"]) == 2

    said = capsys.readouterr().err
    assert "no agent called 'chum' is installed; there are: pal" in said
    assert "pip install moat-provider-chum" in said


def test_who_leaves_it_running_can_talk_to_it_later(stage: Stage) -> None:
    stage.grant("example")

    stage.pal("-d")
    stage.pal("-d", "-p", "x")

    assert [way["detached"] for way in stage.ways] == [True, True]
    assert [spec.interactive for spec in stage.specs] == [True, None]


def test_its_metadata_and_the_time_reach_the_agent_and_no_secret_does(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.grant("example")
    seen: list[Surroundings] = []

    def command(self: Pal, request: AgentRequest, around: Surroundings) -> list[str]:
        seen.append(around)
        return ["pal"]

    monkeypatch.setattr(Pal, "command", command)

    stage.pal("-p", "x")

    assert seen[0].metadata == {"known": "fact"}
    assert seen[0].now <= datetime.now(UTC)
    assert SECRET not in repr(seen)


def test_a_plugin_cannot_take_a_command_of_moats(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Run(Pal):
        name = "run"

    plugin = a_plugin("run", moat_agent_providers=lambda: [Run()])
    monkeypatch.setattr(Plugins, "load", classmethod(lambda cls: cls([plugin])))

    assert main.run(["nothing"]) == 1

    assert "the agent 'run' of moat-provider-run is called like a command of moat's" in capsys.readouterr().err


def test_sessions_are_listed(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    sessions = Sessions(stage.home, Pal(), stage.work)
    sessions.mounts("/home/moat")
    (sessions.folder / ".pal_said" / "abc").write_text("fix\nthe \x1b[2Jtest")

    assert main.run(["sessions", "--json"]) == 0

    (found,) = json.loads(capsys.readouterr().out)
    assert (found["agent"], found["id"], found["title"]) == ("pal", "abc", "fix\nthe \x1b[2Jtest")
