from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.errors import UsageError
from moat.cli.asking import Asked, agreed, ask
from moat.config.settings import Settings
from moat.paths import Home, private_folder
from moat.runs.merge import Options

from core.runs.fakes import FakeRuntime

ENV = {"PATH": "/usr/bin:/bin", "TOKEN": "s3cr3t", "MOAT_NO_PROMPT": "1"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(private_folder(tmp_path / "home"))


def asked(work: Path, text: str | None = None, *, ignores_file: bool = False, **said: object) -> Asked:
    if text is not None:
        (work / "moat.yaml").write_text(text)
    options = replace(Options(work), **said)  # type: ignore[arg-type] # whatever the test wants
    return ask(options, Settings(), [FakeRuntime([], sealed=False)], ENV, ignores_file=ignores_file)


def test_a_run_needs_no_file(work: Path, home: Home) -> None:
    found = asked(work, command=("true",))

    assert found.question is None
    assert agreed(found, home, ENV, is_given=False) == found.spec


def test_without_a_file_nothing_is_imported_to_read_one(work: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from moat.cli.asking import ask; from moat.runs.merge import Options\n"
        "from moat.config.settings import Settings\n"
        f"ask(Options(Path({str(work)!r}), ('true',)), Settings(), [], {{}}, ignores_file=False)\n"
        "assert not {'pydantic', 'yaml'} & set(sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)

    assert done.returncode == 0, done.stderr


def test_the_command_of_the_file_is_run_where_none_is_typed(work: Path, home: Home) -> None:
    found = asked(work, "command: [make, test]")

    assert agreed(found, home, ENV, is_given=False).command == ("make", "test")


def test_a_command_must_stand_somewhere(work: Path) -> None:
    with pytest.raises(UsageError, match="no command to run") as refusal:
        asked(work, "name: x")

    assert str(work / "moat.yaml") in refusal.value.hint


def test_a_file_that_is_to_be_ignored_is_not_even_read(work: Path) -> None:
    found = asked(work, "this: [is no", ignores_file=True, command=("true",))

    assert found.question is None


def test_a_file_that_makes_no_sense_ends_it(work: Path) -> None:
    with pytest.raises(UsageError, match="line 1: grnts: this key is not known"):
        asked(work, "grnts: [github]", command=("true",))


def test_nothing_is_fetched_before_the_user_agrees(work: Path, home: Home, tmp_path: Path) -> None:
    found = asked(work, f"command: [x]\nsecrets: {{A: 'cmd://touch {tmp_path}/ran'}}")

    with pytest.raises(UsageError, match="needs your yes"):
        agreed(found, home, ENV, is_given=False)

    assert not (tmp_path / "ran").exists()
    assert found.spec.env == {"A": ""}


def test_a_secret_is_fetched_after_it_and_shown_nowhere(work: Path, home: Home) -> None:
    found = asked(work, "command: [x]\nsecrets: {A: env://TOKEN}")

    spec = agreed(found, home, ENV, is_given=True)

    assert spec.env == {"A": "s3cr3t"}
    assert "s3cr3t" not in repr((found, spec))


def test_an_option_makes_a_secret_needless(work: Path, home: Home) -> None:
    found = asked(work, "command: [x]\nsecrets: {A: env://ABSENT}", env={"A": "mine"})

    assert agreed(found, home, ENV, is_given=False).env == {"A": "mine"}


def test_a_mount_is_asked_about_by_its_real_path(work: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (work / "innocent").symlink_to(tmp_path / "secret")
    (work / "data").mkdir()

    found = asked(work, "command: [x]\nmounts: [{source: innocent, target: /a}, {source: data, target: /b}]")

    real = tmp_path.resolve()
    assert found.spec.mounts == (Mount(real / "secret", "/a"), Mount(real / "work" / "data", "/b"))
    assert found.question is not None
    assert found.question.wishes == (f"read and change {real}/secret, as /a",)


def test_an_unsealed_runtime_is_known_by_what_is_installed(work: Path) -> None:
    found = asked(work, "command: [id]\nruntime: fake")

    assert found.question is not None
    assert found.question.wishes[1] == "run, outside of any sandbox: id"


def test_who_only_looks_is_told_what_is_not_granted_yet(work: Path, home: Home) -> None:
    found = asked(work, "command: [x]\ngrants: [github]")

    before = found.warnings(home)
    agreed(found, home, ENV, is_given=True)

    assert [warning.endswith("wants to spend your credential github") for warning in before] == [True]
    assert found.warnings(home) == []
