from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from moat.api.errors import GrantMissing, UsageError
from moat.api.runs import RunSpec
from moat.api.runtimes import Runtime
from moat.cli import main, start
from moat.cli import run_steps as command
from moat.cli.run_options import read
from moat.cli.run_steps import checked_excludes
from moat.daemon.protocol import SetupRequest, SetupResponse
from moat.net.rules import parse_rule
from moat.paths import Home
from moat.runs.prepare import Prepared
from moat.runtimes.bubblewrap import Bubblewrap

from core.runs.fakes import FakeClient, FakeRuntime
from core.runs.plans import a_setup


class Stage:
    """`moat run` with a daemon and a runtime that remember."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_click: bool) -> None:
        self.by_click = by_click
        self.told: list[str] = []
        self.specs: list[RunSpec] = []
        self.setup: SetupResponse | GrantMissing = a_setup({"GH_TOKEN": "placeholder"})
        self.home = Home(tmp_path / "moat")
        self.work = tmp_path / "work"
        self.work.mkdir()
        self.runtime: FakeRuntime | None = None
        self.exit_code = 0
        monkeypatch.setenv("MOAT_HOME", str(self.home.root))
        monkeypatch.chdir(self.work)
        monkeypatch.setattr(command, "prepare", self._prepare)

    def run(self, *arguments: str) -> int:
        """Run it as it is typed, or by click."""
        typed = None if self.by_click else read(["run", *arguments], os.environ)
        return main.run(["run", *arguments]) if typed is None else start.run(typed)

    def _prepare(self, spec: RunSpec, home: Home, runtimes: object, *rest: object) -> Prepared:
        from moat.runs.collect import collect
        from moat.runs.plan import plan

        self.specs.append(spec)
        self.runtime = FakeRuntime(self.told)
        self.runtime.exit_code = self.exit_code
        client = _Client(home, self.told, self.setup)
        facts = collect(spec, home, client, self.runtime, {}, None)
        runtime: Runtime = self.runtime
        return Prepared(facts, plan(spec, facts), runtime, client)


class _Client(FakeClient):
    def __init__(self, home: Home, told: list[str], answer: SetupResponse | GrantMissing) -> None:
        super().__init__(home, told)
        self.answer = answer

    def setup(self, request: SetupRequest) -> SetupResponse:
        if isinstance(self.answer, GrantMissing):
            raise self.answer
        return self.answer


@pytest.fixture(params=["plain", "by click"])
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch, by_click=request.param == "by click")


def test_what_follows_the_dashes_is_the_command_and_not_ours_to_read(stage: Stage) -> None:
    assert stage.run("--name", "x", "--", "cmd", "--grant", "y", "--", "-e") == 0

    assert stage.specs[0].command == ("cmd", "--grant", "y", "--", "-e")
    assert stage.specs[0].workspace == stage.work
    assert stage.specs[0].name == "x"


def test_the_exit_code_is_the_commands(stage: Stage) -> None:
    stage.exit_code = 42

    assert stage.run("--", "false") == 42


def test_our_words_go_to_standard_error_and_are_two_lines(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.run("--", "true")

    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert "sealed ✓" in err.splitlines()[0]


def test_every_option_reaches_the_spec(stage: Stage) -> None:
    (stage.work / "data").mkdir()

    stage.run(
        "data", "--grant", "github", "--grant", "github", "-e", "A=b=c", "--mount", "data:/data:ro",
        "--policy", "strict", "--allow-host", "*.example.com", "--rule", "deny DELETE *",
        "--runtime", "bubblewrap", "--image", "img", "--profile", "work",
        "--allow-socket", "--trace-bodies", "--", "true",
    )  # fmt: skip

    spec = stage.specs[0]
    assert spec.workspace == stage.work / "data"
    assert spec.grants == ("github",)
    assert spec.env == {"A": "b=c"}
    assert spec.mounts[0].read_only
    assert (spec.policy.mode, spec.policy.allow) == ("strict", ("*.example.com",))
    assert spec.policy.rules == (parse_rule("deny DELETE *"),)
    assert (spec.runtime, spec.image, spec.allow_sockets) == ("bubblewrap", "img", True)
    assert spec.profile == "work"
    assert spec.trace_bodies


def test_the_profile_may_come_from_the_variable_and_default_means_none(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAT_PROFILE", "work")
    stage.run("--", "true")
    stage.run("--profile", "default", "--", "true")

    assert [spec.profile for spec in stage.specs] == ["work", ""]


def test_runtime_and_image_come_from_the_flag_the_variable_or_the_settings(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.home.root.mkdir(mode=0o700)
    stage.home.config.write_text("image: from-settings\nruntime: docker\n")
    stage.run("--", "true")
    monkeypatch.setenv("MOAT_IMAGE", "from-variable")
    monkeypatch.setenv("MOAT_RUNTIME", "bubblewrap")
    stage.run("--", "true")
    stage.run("--image", "from-flag", "--runtime", "process", "--", "true")

    assert [spec.image for spec in stage.specs] == ["from-settings", "from-variable", "from-flag"]
    assert [spec.runtime for spec in stage.specs] == ["docker", "bubblewrap", "process"]


def test_a_missing_grant_refuses_before_anything_exists_and_names_the_fix(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    stage.setup = GrantMissing("missing grant: github", hint="run: moat grant github")

    assert stage.run("--grant", "github", "--", "true") == 1

    assert stage.told == []
    assert "run: moat grant github" in capfd.readouterr().err


def test_a_rehearsal_runs_nothing(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    assert stage.run("--dry-run", "--json", "--", "true") == 0

    assert stage.told == []
    assert '"command"' in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("curl", "https://example.com"), "run: moat run -- curl https://example.com"),
        ((), "there is no command"),
        (("--",), "there is no command"),
        (("a", "b", "--", "true"), "only one folder"),
        (("--json", "--", "true"), "--dry-run"),
        (("-e", "X", "--", "true"), "-e X=value"),
        (("--mount", "a:b:c:d", "--", "true"), "SRC"),
        (("--policy", "none", "--", "true"), "permissive"),
        (("--rule", "allow GET /path", "--", "true"), "names no host"),
        (("--name", "A B", "--", "true"), "cannot name a run"),
        (("absent", "--", "true"), "does not exist"),
    ],
)
def test_wrong_usage_is_refused_with_what_to_type(
    stage: Stage, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert stage.run(*arguments) == 2

    assert said in capfd.readouterr().err
    assert stage.told == []


def test_secrets_in_the_workspace_and_in_variables_are_warned_about_before(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    (stage.work / ".env").write_text("KEY=s3cr3t")

    stage.run("-e", "MY_TOKEN=s3cr3t", "-e", "HTTPS_PROXY=http://other", "--", "true")

    lines = capfd.readouterr().err.splitlines()
    assert [line.startswith("warning:") for line in lines] == [True, True, True, False, False]
    assert "s3cr3t" not in "".join(lines)


@pytest.mark.parametrize(
    ("options", "begins"),
    [((), True), (("--dry-run",), False), (("-d",), False), (("-t",), False)],
)
def test_the_runtime_that_is_named_begins_where_this_process_holds_the_run(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], begins: bool
) -> None:
    told: list[str] = []

    @contextmanager
    def begun(self: Bubblewrap) -> Iterator[None]:
        told.append("begun")
        yield
        told.append("undone")

    monkeypatch.setattr(Bubblewrap, "begun", begun)
    monkeypatch.setattr(command, "carry_out", lambda *_, **__: 0)
    monkeypatch.setattr(os, "isatty", lambda _: False)

    stage.run("--runtime", "bubblewrap", *options, "--", "true")

    assert told == (["begun", "undone"] if begins else [])


def test_rules_that_a_batch_leads_around_are_warned_about(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.run("--rule", "deny DELETE www.googleapis.com", "--", "true")
    warned = capfd.readouterr().err
    stage.run("--rule", "deny DELETE api.example.com", "--", "true")

    assert "--rule 'deny POST www.googleapis.com/batch/**'" in warned
    assert "batch" not in capfd.readouterr().err


def test_the_workspace_says_what_the_options_do_not(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    (stage.work / "moat.yaml").write_text("name: mine\ncommand: [make]\nenv: {A: file, B: file}\n")

    assert stage.run("-e", "A=flag") == 0

    spec = stage.specs[0]
    assert (spec.name, spec.command, spec.env) == ("mine", ("make",), {"A": "flag", "B": "file"})
    assert "· moat.yaml · sealed" in capfd.readouterr().err


def test_the_folder_that_is_named_chooses_the_file(stage: Stage) -> None:
    (stage.work / "data").mkdir()
    (stage.work / "data" / "moat.yaml").write_text("command: [of-data]\n")
    (stage.work / "moat.yaml").write_text("command: [of-here]\n")

    stage.run("data")
    stage.run()

    assert [spec.command for spec in stage.specs] == [("of-data",), ("of-here",)]
    assert stage.specs[0].workspace == stage.work / "data"


def test_a_file_that_wants_more_needs_a_yes_and_a_rehearsal_needs_none(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (stage.work / "moat.yaml").write_text("command: [make]\ngrants: [github]\n")
    monkeypatch.setattr(sys, "argv", ["moat", "run"])

    assert stage.run("--dry-run") == 0
    assert "not granted yet" in capfd.readouterr().err
    assert stage.run() == 2
    assert "moat run --yes" in capfd.readouterr().err
    assert stage.told == []
    assert stage.run("--yes") == 0
    assert stage.run() == 0
    assert stage.run("--ignore-file", "--", "true") == 0
    assert [spec.grants for spec in stage.specs[1:]] == [("github",), ("github",), ()]


def test_a_secret_is_warned_about_and_not_shown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOST_SIDE", "s3cr3t-value")
    (stage.work / "moat.yaml").write_text("command: [make]\nsecrets: {PLAIN: env://HOST_SIDE}\n")

    assert stage.run("--dry-run") == stage.run("--dry-run", "--json") == stage.run("--yes") == 0

    out, err = capfd.readouterr()
    assert err.count("is a variable inside, and the run can read it") == 3
    assert "s3cr3t" not in out + err
    assert stage.specs[-1].env == {"PLAIN": "s3cr3t-value"}


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--exclude '!a' begins with !"):
        checked_excludes((".env", "!a"))
    assert checked_excludes((".env",)) == (".env",)
