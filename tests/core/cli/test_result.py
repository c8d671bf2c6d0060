from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.installation import Installation, eventually, installation

WORK = "echo two > a; mkdir -p .git/hooks; touch .git/hooks/pre-commit"


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.file("work/a", "one\n")
        yield made


def test_a_run_on_a_copy_is_looked_at_and_taken_over(moat: Installation) -> None:
    done = moat.run("run", "--copy", "work", "--runtime", "process", "--name", "tries", "--", "true")
    assert b"0 files changed in the copy" in done.stderr

    command = ("sh", "-c", f"cd /workspace 2>/dev/null; {WORK}")
    done = moat.run("run", "--copy", "work", "--runtime", "bubblewrap", "--name", "works", "--", *command)
    assert done.returncode == 0
    assert b"1 file changed in the copy \xc2\xb7 moat diff works \xc2\xb7 moat apply works" in done.stderr
    assert (moat.home / "work/a").read_text() == "one\n"
    assert not (moat.home / "work/.git").exists()

    assert "-one\n+two\n" in moat.ok("diff", "works")
    assert "1 file changed" in moat.ok("diff", "works", "--stat")
    assert moat.run("apply", "works").stderr.startswith(b"moat: changed 1 file in ")
    assert (moat.home / "work/a").read_text() == "two\n"
    assert not (moat.home / "work/.git").exists()
    again = moat.run("apply", "works")
    assert again.returncode == 1
    assert b"do not fit the workspace" in again.stderr
    assert list((moat.home / ".moat-copies").iterdir()) == []


def test_moat_yaml_may_ask_for_a_copy_and_nobody_need_agree(moat: Installation) -> None:
    moat.file("work/moat.yaml", "workspace: {mode: copy}\nruntime: bubblewrap\n")

    shown = moat.ok("run", "work", "--dry-run", "--", "true")
    assert f"workspace  a copy of {moat.home / 'work'}  [moat.yaml]" in shown
    done = moat.run("run", "work", "--name", "tries", "--", "sh", "-c", "rm a")

    assert done.returncode == 0, done.stderr
    assert (moat.home / "work/a").exists()
    assert "deleted file" in moat.ok("diff", "tries")


def test_a_detached_run_on_a_copy_has_its_result_when_it_is_over(moat: Installation) -> None:
    script = "echo two > a; echo written; while [ ! -e go ]; do sleep 0.05; done"
    moat.ok("run", "-d", "--copy", "work", "--runtime", "bubblewrap", "--name", "away", "--", "sh", "-c", script)
    eventually("it has written", lambda: moat.run("logs", "away").stdout == b"written\n")
    early = moat.run("diff", "away")
    assert early.returncode == 2
    assert b"away is not over" in early.stderr

    moat.ok("stop", "away")

    assert b"1 file changed in the copy" in moat.run("wait", "away").stderr
    assert "+two" in moat.ok("diff", "away")


def test_a_run_without_a_copy_has_no_result(moat: Installation) -> None:
    moat.ok("run", "work", "--runtime", "process", "--name", "plain", "--", "true")

    done = moat.run("apply", "plain")

    assert done.returncode == 2
    assert b"did not work on a copy" in done.stderr
    assert b"moat run --copy" in done.stderr
