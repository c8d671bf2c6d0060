"""`moat grant` as a user types it: the real program, a clean environment, a real TLS service as api.github.com."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from moat.api import Credential, CredentialProvider, GrantOption, Host, Rule
from moat.api.errors import UsageError
from moat.cli import main
from moat.cli.grant import _command_of
from support.upstream import Upstream, running_upstream

MOAT = Path(sys.executable).with_name("moat")
TOKEN = "ghp_s3cr3t_good"
BAD_TOKEN = "ghp_s3cr3t_bad"
GRANTED = "spent on api.github.com, github.com, uploads.github.com\n"

Done = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def github() -> Iterator[Upstream]:
    with running_upstream(f"Bearer {TOKEN}") as upstream:
        yield upstream


@dataclass
class User:
    """Somebody with a home, a PATH of their own, and GitHub on loopback."""

    root: Path

    @property
    def env(self) -> dict[str, str]:
        path = str(self.root / "bin")  # and nothing of the machine's: it may have a gh
        return {"HOME": str(self.root), "PATH": path, "MOAT_KEYRING_BACKEND": "file", "LANG": "C.UTF-8"}

    @property
    def stored(self) -> list[str]:
        return sorted(path.name for path in (self.root / ".moat" / "credentials").glob("*"))

    def types(
        self, *words: str, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run moat; nothing it says may hold a secret."""
        done = subprocess.run(
            [MOAT, *words], input=stdin, env={**self.env, **(env or {})}, capture_output=True, text=True, check=False
        )
        assert "s3cr3t" not in done.stdout + done.stderr
        return done

    def has_gh(self, script: str) -> None:
        path = self.root / "bin" / "gh"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def user(tmp_path: Path, github: Upstream) -> User:
    home = tmp_path / ".moat"
    home.mkdir(mode=0o700)
    (home / "roots.pem").write_text(github.ca_pem)
    upstream = {"ca_bundle": "roots.pem", "resolve": github.pins("api.github.com"), "allow_cidrs": ["127.0.0.0/8"]}
    (home / "config.yaml").write_text(json.dumps({"upstream": upstream}))
    return User(tmp_path)


@pytest.mark.parametrize("variable", ["GITHUB_TOKEN", "GH_TOKEN"])
def test_a_token_in_the_environment_is_checked_and_stored(user: User, github: Upstream, variable: str) -> None:
    done = user.types("grant", "github", env={variable: TOKEN})

    assert done.stdout == f"github granted from {variable}; {GRANTED}"
    assert (done.returncode, done.stderr, user.stored) == (0, "", ["github.json"])
    assert (github.seen[-1].host, github.seen[-1].path) == ("api.github.com", "/user")


def test_a_token_from_standard_input(user: User) -> None:
    assert user.types("grant", "github", "--with-token", stdin=f"{TOKEN}\n").stdout.startswith(
        "github granted from standard"
    )


def test_a_rejected_token_is_not_stored(user: User) -> None:
    done = user.types("grant", "github", env={"GITHUB_TOKEN": BAD_TOKEN})

    assert (done.returncode, done.stdout, user.stored) == (1, "", [])
    assert "error: github rejected the token from GITHUB_TOKEN (HTTP 401); nothing was saved" in done.stderr
    assert "hint: make a new token" in done.stderr


def test_a_rejected_token_leaves_the_stored_one(user: User) -> None:
    user.types("grant", "github", env={"GITHUB_TOKEN": TOKEN})
    before = (user.root / ".moat/credentials/github.json").read_bytes()

    user.types("grant", "github", env={"GITHUB_TOKEN": BAD_TOKEN})

    assert (user.root / ".moat/credentials/github.json").read_bytes() == before


def test_an_unreachable_api_stores_nothing_and_names_the_way_round(user: User) -> None:
    settings = {"upstream": {"resolve": {"api.github.com": "127.0.0.1:1"}, "allow_cidrs": ["127.0.0.0/8"]}}
    (user.root / ".moat" / "config.yaml").write_text(json.dumps(settings))

    done = user.types("grant", "github", env={"GITHUB_TOKEN": TOKEN})

    assert (done.returncode, user.stored) == (1, [])
    assert "api.github.com cannot be reached" in done.stderr
    assert "moat grant github --no-validate" in done.stderr


def test_without_validation_nothing_is_asked(user: User, github: Upstream) -> None:
    before = len(github.seen)

    done = user.types("grant", "github", "--with-token", "--no-validate", stdin=BAD_TOKEN)

    assert (done.returncode, user.stored, len(github.seen)) == (0, ["github.json"], before)


def test_without_a_token_or_a_terminal_the_ways_are_named(user: User) -> None:
    done = user.types("grant", "github")

    assert (done.returncode, user.stored) == (1, [])
    assert "hint: set GITHUB_TOKEN or GH_TOKEN, or run: moat grant github --with-token < FILE" in done.stderr


def test_a_gh_that_fails_is_noted(user: User) -> None:
    user.has_gh("exit 1")

    assert "note: gh is installed but has no token" in user.types("grant", "github").stderr


@pytest.mark.parametrize(
    ("stdin", "problem"),
    [("", "is empty"), ("x" * 70_000, "too long to be a token"), ("two words", "no github token")],
    ids=["empty", "a whole file", "prose"],
)
def test_what_is_no_token_is_refused_before_anything_is_asked(user: User, stdin: str, problem: str) -> None:
    done = user.types("grant", "github", "--with-token", stdin=stdin)

    assert (done.returncode, user.stored) == (1, [])
    assert problem in done.stderr


def test_an_unknown_provider_lists_what_is_installed(user: User) -> None:
    done = user.types("grant", "gitlab")

    assert done.returncode == 2
    assert "anthropic, aws, claude, codex, github, openai" in done.stderr
    assert "hint: run: pip install moat-provider-gitlab" in done.stderr


@pytest.mark.parametrize("name", ["../x", "A", "a b"])
def test_an_impossible_name_is_refused(user: User, name: str) -> None:
    assert "cannot name a grant" in user.types("grant", name).stderr


def test_what_is_stored_is_listed_shown_and_revoked(user: User) -> None:
    user.types("grant", "github", env={"GH_TOKEN": TOKEN})

    [entry] = json.loads(user.types("grant", "list", "--json").stdout)
    assert (entry["name"], entry["source"], entry["expires_at"]) == ("github", "GH_TOKEN", "")
    assert json.loads(user.types("grant", "show", "github", "--json").stdout) == entry
    assert user.types("grant", "list").stdout.splitlines()[1].split() == [
        "github",
        "GH_TOKEN",
        entry["granted_at"],
        "never",
    ]
    assert "source:" in user.types("grant", "show", "github").stdout

    revoked = user.types("grant", "revoke", "github")

    assert revoked.stdout.startswith(f"github revoked; removed the credential from GH_TOKEN of {entry['granted_at']}")
    assert user.stored == []


def test_nothing_stored_is_told(user: User) -> None:
    assert json.loads(user.types("grant", "list", "--json").stdout) == []
    assert user.types("grant", "list").stdout == ""
    for word in ("show", "revoke"):
        done = user.types("grant", word, "github")
        assert (done.returncode, done.stderr) == (
            1,
            "error: no github credential is stored\nhint: run: moat grant github\n",
        )


class NeedsAPlace(CredentialProvider):
    """Has an option that must be given."""

    name = "needing"
    summary = "one that needs a place"
    grant_options = (GrantOption("place", "where", required=True),)

    async def grant(self, host: Host) -> Credential:
        raise AssertionError("it is not asked")

    async def accept(self, secret: str, host: Host) -> Credential:
        raise AssertionError("it is not asked")

    def rules(self, credential: Credential) -> Sequence[Rule]:
        return ()


def test_an_option_that_is_required_is_demanded() -> None:
    with pytest.raises(UsageError, match="--place is missing") as caught:
        _command_of(NeedsAPlace()).main([], standalone_mode=False)

    assert caught.value.hint == f"run: moat grant {NeedsAPlace.name} --help"


def test_the_providers_own_options_are_checked(user: User) -> None:
    assert "error: no role was named, and no profile of yours" in user.types("grant", "aws").stderr
    assert "must start with arn:" in user.types("grant", "aws", "--role", "x", "--no-validate").stderr
    assert user.types("grant", "github", "--role", "x").returncode == 2
    done = user.types("grant", "aws", "--role", "arn:aws:iam::123456789012:role/a", "--no-validate")
    assert done.stdout == "aws granted from --role; spent on *.amazonaws.com, *.api.aws, *.on.aws\n"


def test_the_commands_help_lists_providers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["grant", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {word} " in out for word in ("list", "show", "revoke", "github", "aws", "anthropic", "openai"))


class Terminal:
    """moat on a terminal of its own."""

    def __init__(self, user: User, *words: str) -> None:
        self.screen, inside = pty.openpty()
        argv = ["/usr/bin/setsid", "--ctty", str(MOAT), *words]  # a session whose Ctrl-C is this terminal's
        self.process = subprocess.Popen(argv, stdin=inside, stdout=inside, stderr=inside, env=user.env)
        os.close(inside)
        self.seen = ""

    def waits_for(self, text: str) -> None:
        while text not in self.seen:
            assert select.select([self.screen], [], [], 30)[0], f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.screen, 4096).decode()

    def types(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def ends(self) -> int:
        while select.select([self.screen], [], [], 30)[0]:
            try:
                data = os.read(self.screen, 4096)
            except OSError:  # the last program on the terminal is gone
                break
            self.seen += data.decode()
        os.close(self.screen)
        return self.process.wait(30)


def test_on_a_terminal_the_token_is_asked_for_and_not_shown(user: User) -> None:
    terminal = Terminal(user, "grant", "github")
    terminal.waits_for("GitHub token: ")
    terminal.types(f"{TOKEN}\n")

    assert terminal.ends() == 0
    assert "github granted from prompt" in terminal.seen
    assert "s3cr3t" not in terminal.seen


@pytest.mark.parametrize(("answer", "source"), [("\n", "gh"), ("n\n", "prompt")], ids=["yes", "no"])
def test_the_token_of_gh_is_taken_when_the_user_says_so(user: User, answer: str, source: str) -> None:
    user.has_gh(f"echo {TOKEN}")
    terminal = Terminal(user, "grant", "github")
    terminal.waits_for("[Y/n] ")
    terminal.types(answer)
    if source == "prompt":
        terminal.waits_for("GitHub token: ")
        terminal.types(f"{TOKEN}\n")

    assert terminal.ends() == 0
    assert f"github granted from {source}" in terminal.seen


def test_ctrl_c_at_the_prompt_ends_quietly(user: User) -> None:
    terminal = Terminal(user, "grant", "github")
    terminal.waits_for("GitHub token: ")
    terminal.types("\x03")

    assert terminal.ends() == 128 + signal.SIGINT
    assert terminal.seen.strip() == "GitHub token:"
    assert user.stored == []


def test_a_profile_has_credentials_of_its_own(user: User) -> None:
    done = user.types("grant", "--profile", "work", "github", "--with-token", "--no-validate", stdin=TOKEN)

    assert done.returncode == 0, done.stderr
    assert user.stored == []
    assert "nothing is granted yet" in user.types("grant", "list").stderr
    work = {"MOAT_PROFILE": "work"}
    assert "github" in user.types("grant", "list", env=work).stdout
    assert "revoked" in user.types("grant", "revoke", "github", env=work).stdout
    refused = user.types("grant", "--profile", "../x", "list")
    assert (refused.returncode, "cannot name a profile" in refused.stderr) == (2, True)
