"""Each shell is the real one, in a terminal: keys are typed, and its own line editor says what then stands there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation, eventually, installation
from support.terminal import Terminal, terminal

KEY = "\x0f"  # Ctrl-O: has the shell write its line to a file
FIND = "compinit -u -d ~/.zcompdump"
SHELLS = {
    "bash": (
        ("--norc", "-i"),
        """PS1=rea''dy:; bind 'set show-all-if-ambiguous on'; eval "$(moat completion bash)"
        bind -x '"\\C-o": printf "%s|" "$READLINE_LINE" > ~/part; mv ~/part ~/line'""",
    ),
    "zsh": (
        ("-f", "-i"),
        f"""PS1=rea''dy:; autoload -Uz compinit; {FIND}; eval "$(moat completion zsh)"
        line() {{ print -rn -- "$BUFFER|" > ~/part; mv ~/part ~/line }}; zle -N line; bindkey '^O' line""",
    ),
    "fish": (
        ("--no-config", "-i"),
        """function fish_prompt; echo -n rea''dy:; end; moat completion fish | source
        function line; printf '%s|' (commandline) > ~/part; mv ~/part ~/line; end; bind \\co line""",
    ),
}
ENDINGS = {
    "moat unin": "moat uninstall ",
    "moat run --allow-h": "moat run --allow-host ",
    "moat logs cal": "moat logs calm-otter ",
    "moat run --grant gi": "moat run --grant github ",
    "moat run --grant=gi": "moat run --grant=github ",
    "moat grant --profile work show op": "moat grant --profile work show openai ",
    "moat run --profile w": "moat run --profile work ",
    "moat run --runtime bubble": "moat run --runtime bubblewrap ",
    "moat run --runtime=bubble": "moat run --runtime=bubblewrap ",
    "moat run --policy st": "moat run --policy strict ",
    "moat run --service red": "moat run --service redis ",
    "moat join calm-otter cla": "moat join calm-otter claude ",
    "moat run fold": "moat run folder/",
    "moat run -- ls fold": "moat run -- ls folder/",
    "moat no-such-command no-such": "moat no-such-command no-such",
    "moat stop cal": "moat stop cal",  # it has ended
}


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        for name in ("work", "folder"):
            (made.home / name).mkdir()
        made.ok("run", "-d", "work", "--runtime", "process", "--name", "calm-otter", "--", "true")
        made.run("wait", "calm-otter")
        made.grant("github", "ghp_" + "a" * 36)
        made.ok("grant", "--profile", "work", "openai", "--with-token", "--no-validate", input=b"sk-" + b"a" * 40)
        made.close()  # nobody is asked
        yield made


@pytest.fixture(scope="module", params=list(SHELLS))
def shell(moat: Installation, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    name = str(request.param)
    words, set_up = SHELLS[name]
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    with terminal(moat, *words, program=name) as opened:
        for line in set_up.splitlines():
            opened.type(line.strip() + "\r")
        opened.read_until("ready:")
        yield opened


def completed(moat: Installation, shell: Terminal, typed: str) -> str:
    """Type a line and TAB, and return the line that the shell then has; empty it."""
    file = moat.home / "line"
    file.unlink(missing_ok=True)
    shell.type(f"{typed}\t{KEY}")
    eventually(f"the line {typed!r}", file.exists)
    shell.type("\x15")
    return file.read_text().removesuffix("|")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("typed", "line"), ENDINGS.items(), ids=list(ENDINGS))
def test_tab_completes_what_is_typed(moat: Installation, shell: Terminal, typed: str, line: str) -> None:
    assert completed(moat, shell, typed) == line


def test_what_goes_wrong_is_not_said_in_the_line_that_is_typed(moat: Installation, shell: Terminal) -> None:
    shell.unread = b""

    assert completed(moat, shell, "moat grant --profile ../.. show x") == "moat grant --profile ../.. show x"

    assert b"rror" not in shell.unread


def test_what_several_begin_with_is_listed(moat: Installation, shell: Terminal) -> None:
    """The last for each shell: the list stays below the line."""
    shell.unread = b""
    shell.type("moat a\t")

    shell.read_until("attach")
    shell.read_until("audit")


def asked(moat: Installation, words: str, shell: str = "bash", **env: str) -> subprocess.CompletedProcess[bytes]:
    question = {"_MOAT_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
    return moat.run(env={**question, **env})


@pytest.mark.parametrize("words", ["moat", "moat run --grant", "moat run --runtime", "moat logs", "moat audit"])
def test_to_ask_writes_nothing_and_starts_no_daemon(moat: Installation, words: str) -> None:
    def kept() -> dict[Path, tuple[int, int]]:
        found = [moat.home / ".moat", *(moat.home / ".moat").rglob("*")]
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}

    before = kept()
    done = asked(moat, words)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.strip()
    assert kept() == before
    assert moat.daemon_pid() == 0


@pytest.mark.parametrize("words", ["moat", "moat run --grant", "moat run --profile", "moat logs"])
def test_to_ask_where_moat_was_never_used_makes_no_folder(moat: Installation, words: str) -> None:
    done = asked(moat, words, MOAT_HOME=str(moat.home / "never"))

    assert (done.returncode, done.stderr) == (0, b"")
    assert not (moat.home / "never").exists()


@pytest.mark.parametrize(
    ("words", "env"),
    [
        ("moat no-such-command", {}),
        ("moat run --grant", {"MOAT_HOME": "relative"}),
        ("moat", {"_MOAT_COMPLETE": "tcsh_complete"}),
        ("moat", {"_MOAT_COMPLETE": "bash_"}),
        ("moat", {"COMP_CWORD": "x"}),
    ],
)
def test_what_cannot_be_answered_is_answered_with_silence(moat: Installation, words: str, env: dict[str, str]) -> None:
    done = asked(moat, words, **env)

    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_fish_is_told_the_whole_description(moat: Installation) -> None:
    done = asked(moat, "moat ", "fish", COMP_CWORD="stat")

    assert done.stdout == b"plain,status\tShow what runs, on which grants, and how long those last.\n"


@pytest.mark.parametrize("shell", list(SHELLS))
def test_the_script_says_how_it_is_installed(moat: Installation, shell: str) -> None:
    script = moat.ok("completion", shell)

    assert f"_MOAT_COMPLETE={shell}_complete" in script
    assert "# To install:\n" in script
    assert f"#   moat completion {shell} > ~/." in script.replace("mkdir -p ~/.zfunc && ", "")


def test_zsh_finds_the_script_that_was_installed_as_it_says(moat: Installation) -> None:
    moat.file(".zfunc/_moat", moat.ok("completion", "zsh"))
    set_up = SHELLS["zsh"][1].replace('eval "$(moat completion zsh)"', "true").replace(FIND, f"fpath+=~/.zfunc; {FIND}")
    with terminal(moat, *SHELLS["zsh"][0], program="zsh") as opened:
        for line in set_up.splitlines():
            opened.type(line.strip() + "\r")
        opened.read_until("ready:")

        assert completed(moat, opened, "moat unin") == "moat uninstall "


def test_a_shell_that_is_not_known_is_refused(moat: Installation) -> None:
    assert moat.run("completion", "tcsh").returncode == 2
