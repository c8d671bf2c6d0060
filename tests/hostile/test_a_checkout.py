"""A moat.yaml of a stranger's, or one that an earlier run left behind, gets nothing that nobody has said yes to."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.cli.asking import agreed, ask
from moat.config.settings import Settings
from moat.paths import Home, private_folder
from moat.runs.merge import Options
from support.installation import Done, Installation, installation

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(120)]

SECRET = "s3cr3t-of-the-checkout"
RUNTIME = {"MOAT_RUNTIME": "bubblewrap"}
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def made() -> Iterator[Installation]:
    with installation() as made:
        made.configure({"network": {"policy": "strict", "rules": ["deny api.example.com"]}})
        made.grant("github", SECRET)
        made.file("outside/key", SECRET)
        yield made


@pytest.fixture
def work(made: Installation) -> Path:
    return made.file(f"work-{next(_NUMBERS)}/here", "").parent


def run(made: Installation, work: Path, *words: str, env: dict[str, str] | None = None) -> Done:
    return made.run("run", work, *words, env=RUNTIME if env is None else env)


def answers(made: Installation) -> set[str]:
    folder = made.home / ".moat" / "approvals"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        pytest.param("grants: [github]", "spend your credential github", id="a credential"),
        pytest.param("mounts: [{source: ../outside, target: /o}]", "/outside, as /o", id="a folder outside"),
        pytest.param("mounts: [{source: ~/.ssh, target: /o}]", "/.ssh, as /o", id="a folder that may come to be"),
        pytest.param("secrets: {A: env://HOST_SIDE}", "put your variable HOST_SIDE", id="a variable of the host"),
        pytest.param("secrets: {A: file://../outside/key}", "/outside/key into the run", id="a file of the host"),
        pytest.param("secrets: {A: 'cmd://touch MARK'}", "run outside of any sandbox", id="a command on the host"),
        pytest.param("runtime: process", "run without any sandbox", id="no sandbox at all"),
        pytest.param("base_image: company/internal", "start the image company/internal", id="another image"),
        pytest.param("network: {policy: permissive}", "reach every public host", id="a wider policy"),
        pytest.param("network: {allow: [evil.test]}", "reach evil.test", id="a host more"),
        pytest.param(
            "network: {rules: ['allow api.example.com']}", "allow * api.example.com", id="a rule before yours"
        ),
        pytest.param(
            "mcp: [{name: m, url: 'https://evil.test/m', grant: github}]",
            "send your credential github to https://evil.test/m",
            id="a credential for somebody else",
        ),
        pytest.param("ports: {web: 3000}", "have its port 3000 reached from this machine", id="a port of this machine"),
        pytest.param("container: {pids: 100000}", "have 100000 processes", id="more than usual"),
    ],
)
def test_an_unread_file_gets_nothing_that_reaches_beyond_the_sandbox(
    made: Installation, work: Path, text: str, wish: str
) -> None:
    mark, before = made.home / "mark", answers(made)
    (work / "moat.yaml").write_text(f"command: [touch, ran]\n{text.replace('MARK', str(mark))}\n")

    done = run(made, work, env={} if "runtime" in text else None)

    assert done.returncode == 2, done.stderr
    assert wish.encode() in done.stderr
    assert f"if you want all of that: moat run {work} --yes;".encode() in done.stderr
    assert not (work / "ran").exists()
    assert not mark.exists()
    assert answers(made) == before


def test_what_the_user_runs_without_a_sandbox_runs_nothing_of_an_unread_file(made: Installation, work: Path) -> None:
    (work / "moat.yaml").write_text("command: [touch, ran]\nenv: {LD_PRELOAD: ./evil.so}\n")

    first = run(made, work, env={"MOAT_RUNTIME": "process"})
    second = run(made, work, "--", "true", env={"MOAT_RUNTIME": "process"})

    assert (first.returncode, second.returncode) == (2, 2)
    assert b"run, outside of any sandbox: touch ran" in first.stderr
    assert b"LD_PRELOAD=./evil.so" in second.stderr
    assert not (work / "ran").exists()


def test_what_a_run_writes_into_the_file_counts_only_after_another_yes(made: Installation, work: Path) -> None:
    script = "echo 'mounts: [{source: ../outside, target: /o}]' >> moat.yaml; cat /o/key"
    (work / "moat.yaml").write_text(f"command: [sh, -c, {script!r}]\ngrants: [github]\n")

    first, second = run(made, work, "--yes"), run(made, work)

    assert b"No such file" in first.stderr
    assert second.returncode == 2
    assert b"/outside, as /o" in second.stderr
    assert SECRET.encode() not in first.stdout + second.stdout


def test_a_run_can_neither_see_nor_write_the_answers(made: Installation, work: Path) -> None:
    answers_folder = made.home / ".moat" / "approvals"
    (work / "moat.yaml").write_text(f"command: [sh, -c, 'ls {answers_folder} || ls ~/.moat']\ngrants: [github]\n")

    done = run(made, work, "--yes")

    assert done.returncode != 0
    assert done.stdout == b""
    for shown in (answers_folder, made.home / ".moat"):
        (work / "moat.yaml").write_text(f"command: ['true']\nmounts: [{{source: {shown}, target: /o}}]\n")
        assert b"moat's own folder" in run(made, work, "--yes").stderr


def test_a_link_that_leads_elsewhere_since_the_yes_is_another_question(made: Installation, work: Path) -> None:
    (work / "data").mkdir()
    text = "command: [cat, /data/key]\ngrants: [github]\nmounts: [{source: data, target: /data}]\n"
    (work / "moat.yaml").write_text(text)
    first = run(made, work, "--yes", "--", "sh", "-c", "rmdir data; ln -s ../outside data")

    second = run(made, work)

    assert first.returncode == 0, first.stderr
    assert second.returncode == 2
    assert b"/outside, as /data" in second.stderr
    assert SECRET.encode() not in second.stdout


def test_a_program_that_a_run_can_change_is_never_run_on_the_host(made: Installation, work: Path) -> None:
    program = work / "bin" / "tell"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {made.home}/mark-of-tell\necho x\n")
    program.chmod(0o755)
    around = {**RUNTIME, "PATH": f"{program.parent}:{made.environment()['PATH']}"}

    for words in ("tell", "./bin/tell", str(program), f"sh {program}"):
        (work / "moat.yaml").write_text(f"command: ['true']\nsecrets: {{A: 'cmd://{words}'}}\n")
        done = made.run("run", work, "--yes", env=around, cwd=work)
        assert done.returncode == 2, done.stderr

    assert not (made.home / "mark-of-tell").exists()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b]\n", id="aliases"),
        pytest.param(b"command: " + b"[" * 60_000, id="depth"),
        pytest.param(b"#" * 5_000_000, id="length"),
        pytest.param(b"command: !!python/object/apply:os.system ['touch ran']", id="an object"),
        pytest.param(b"command: [touch, ran]\ncommand: [touch, ran]", id="a key twice"),
        pytest.param(b"command: [touch, ran]\ngrantz: [github]", id="a key that nobody knows"),
        pytest.param(b"command: [touch, ran]\n\x1b[2J: x", id="a key that draws"),
        pytest.param(b"\x00\xff\xfe", id="no text"),
    ],
)
def test_a_file_that_is_meant_to_hurt_its_reader_is_an_error(made: Installation, work: Path, text: bytes) -> None:
    (work / "moat.yaml").write_bytes(text)

    done = run(made, work, "--yes")

    assert (done.returncode, b"Traceback" in done.stderr, b"\x1b" in done.stderr) == (2, False, False), done.stderr
    assert not (work / "ran").exists()


@pytest.mark.parametrize("what", ["a pipe", "a device", "a link out", "a folder"])
def test_a_file_that_is_none_is_an_error_and_holds_nobody_up(made: Installation, work: Path, what: str) -> None:
    path = work / "moat.yaml"
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if what == "a device" else made.home / "outside" / "key")

    done = run(made, work, "--yes", "--", "touch", "ran")

    assert done.returncode == 2, done.stderr
    assert SECRET.encode() not in done.stderr
    assert not (work / "ran").exists()


def test_the_summary_is_what_it_says_on_a_terminal_too(made: Installation, work: Path) -> None:
    hostile = "\\e[2K\\e[1A\\e[2m\\u202E\\r"
    (work / "moat.yaml").write_text(
        f'command: ["{hostile}"]\nsecrets: {{A: "env://X"}}\nbase_image: "\\u202Ex\\u0435"\n'
        'mounts: [{source: "/\\u0435\\u202E", target: "/o"}]\nruntime: process\n'
    )
    person, screen = os.openpty()
    process = made.start("run", work, stdin=subprocess.DEVNULL, stderr=screen, env={"TERM": "xterm"})
    os.close(screen)
    shown = b""
    while data := _read(person):
        shown += data
    os.close(person)
    process.communicate(timeout=30)

    wishes = [line for line in shown.decode().splitlines() if line.startswith("  ")]
    assert process.returncode == 2
    assert [line.split(".")[0].strip() for line in wishes] == ["1", "2", "3", "4", "5"], wishes
    assert all(line.isascii() and line.isprintable() for line in wishes), wishes


def test_a_file_that_changes_after_it_was_read_changes_nothing_of_what_is_agreed_to(tmp_path: Path) -> None:
    (tmp_path / "moat.yaml").write_text("command: [one]\ngrants: [github]\n")
    home, env = Home(private_folder(tmp_path / "home")), {"MOAT_NO_PROMPT": "1"}

    first = ask(Options(tmp_path), Settings(), [], env, ignores_file=False)
    (tmp_path / "moat.yaml").write_text("command: [two]\ngrants: [github, aws]\n")
    spec = agreed(first, home, env, is_given=True)

    assert (spec.command, spec.grants) == (("one",), ("github",))
    second = ask(Options(tmp_path), Settings(), [], env, ignores_file=False)
    with pytest.raises(UsageError, match="needs your yes"):
        agreed(second, home, env, is_given=False)


def test_the_value_of_a_secret_is_in_the_run_and_nowhere_else(made: Installation, work: Path) -> None:
    script = 'echo ready; read line; printf %s "$A" | wc -c'
    (work / "moat.yaml").write_text(f"command: [sh, -c, {script!r}]\nsecrets: {{A: file://../outside/key}}\n")
    before = made.run("run", work, "--dry-run", "--json", env=RUNTIME)
    process = made.start("run", work, "--yes", stdin=subprocess.PIPE, env=RUNTIME)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    lines = b"".join(_bytes(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
    out, err = process.communicate(b"\n", timeout=30)

    assert out.split() == [str(len(SECRET)).encode()]
    assert SECRET.encode() not in before.stdout + before.stderr + lines + err
    assert b"the run can read it" in err


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # EIO: nobody has the other end any more
        return b""
