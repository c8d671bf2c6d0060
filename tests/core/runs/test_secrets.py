from __future__ import annotations

import os
from pathlib import Path

import pytest
from moat.api import Host, SecretFailed, SecretSource
from moat.api.errors import UsageError
from moat.paths import Home, private_folder
from moat.plugins.manager import Plugins
from moat.runs.secrets import LIMIT_BYTES, Reference, fetch, referred

from core.plugins.plugin import a_plugin


class Odd(SecretSource):
    """A source that says who asked, or refuses."""

    name = "odd"
    summary = "says who asked"

    def describe(self, reference: str) -> str:
        if not reference.startswith("/"):
            raise SecretFailed("it names nothing odd", hint="write odd:///x")
        return f"look up {reference} with your key"

    async def fetch(self, reference: str, host: Host) -> str:
        if reference == "/gone":
            raise SecretFailed("there is no such thing", hint="run: odd list")
        if reference == "/bug":
            raise ValueError("s3cr3t")
        return f"s3cr3t{reference} for {host.env['TOKEN'][:6]}\n"


class Place:
    """A workspace, a home of the user's, moat's own, and a program outside of all of them."""

    def __init__(self, tmp_path: Path) -> None:
        self.work, self.user, self.bin = tmp_path / "work", tmp_path / "user", tmp_path / "bin"
        for folder in (self.work, self.user, self.bin):
            folder.mkdir()
        self.home = Home(private_folder(tmp_path / "moat"))
        self.sources = Plugins([a_plugin("odd", moat_secret_sources=lambda: [Odd()])])
        self.env = {"PATH": f"{self.work}/bin:relative::{self.bin}:/usr/bin:/bin", "TOKEN": "s3cr3t-env"}

    def program(self, folder: Path, name: str, script: str) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
        return folder / name

    def referred(self, text: str) -> Reference:
        return referred("X", text, workspace=self.work, user_home=self.user, env=self.env, sources=self.sources)

    async def fetch(self, text: str) -> str:
        reference = self.referred(text)
        return await fetch(reference, workspace=self.work, home=self.home, env=self.env, sources=self.sources)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path.resolve())


async def test_a_variable_of_the_shell(place: Place) -> None:
    assert await place.fetch("env://TOKEN") == "s3cr3t-env"


async def test_a_file_without_the_newline_at_its_end(place: Place) -> None:
    (place.user / "key").write_text("s3cr3t\nfile\r\n")
    (place.work / "key").write_text("s3cr3t-work")

    assert await place.fetch("file://~/key") == "s3cr3t\nfile"
    assert await place.fetch(f"file://{place.user}/key") == "s3cr3t\nfile"
    assert await place.fetch("file://key") == "s3cr3t-work"


async def test_what_a_program_says_without_a_shell_and_away_from_the_workspace(place: Place) -> None:
    place.program(place.bin, "tell", 'echo "$# $1 $(pwd) $PATH"; echo noise >&2')

    told = await place.fetch("cmd://tell 'a b' $HOME;id")

    assert told == f"2 a b / {place.bin}:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("env://ABSENT", "ABSENT is not set"),
        ("file://~/absent", "No such file"),
        ("file:///proc/self/mem", "no file|cannot be read|no text|longer"),
        ("file:///dev/zero", "no file"),
        ("file:///etc", "no file"),
        ("cmd://false", "ended with 1"),
        ("cmd://true", "is empty"),
        ("cmd://head -c 70000 /dev/zero", "is no text"),
        ("cmd://printf %066000d 1", "longer"),
    ],
)
async def test_what_cannot_be_had_says_why_and_names_the_key(place: Place, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"the secret X cannot be had: .*({why})") as refusal:
        await place.fetch(text)

    assert "secrets.X" in refusal.value.hint


@pytest.mark.parametrize("script", ["echo s3cr3t; echo s3cr3t >&2; exit 3", "printf 's3cr3t\\0more'"])
async def test_what_a_program_says_stands_in_no_error(place: Place, script: str) -> None:
    place.program(place.bin, "tell", script)

    with pytest.raises(UsageError) as refusal:
        await place.fetch("cmd://tell")

    assert "s3cr3t" not in refusal.value.problem + refusal.value.hint


async def test_moats_own_files_are_nobodys_secret(place: Place) -> None:
    (place.home.root / "key").write_text("s3cr3t")
    (place.user / "link").symlink_to(place.home.root / "key")

    for text in (f"file://{place.home.root}/key", "file://~/link"):
        with pytest.raises(UsageError, match="moat's own"):
            await place.fetch(text)


async def test_a_file_that_is_another_one_by_the_time_it_is_read_is_refused(place: Place) -> None:
    (place.work / "sub").mkdir()
    (place.work / "sub" / "key").write_text("harmless")
    (place.user / "key").write_text("s3cr3t")
    shown = place.referred("file://sub/key")

    (place.work / "sub" / "key").unlink()
    (place.work / "sub").rmdir()
    (place.work / "sub").symlink_to(place.user)

    with pytest.raises(UsageError, match=r"no longer the one"):
        await fetch(shown, workspace=place.work, home=place.home, env=place.env, sources=place.sources)


@pytest.mark.parametrize("text", ["cmd://mine", "cmd://./mine", "cmd://bin/mine", "cmd://relative", "cmd://absent"])
def test_no_program_is_looked_for_in_the_workspace(place: Place, text: str) -> None:
    place.program(place.work / "bin", "mine", "echo x")
    place.program(place.work, "mine", "echo x")

    with pytest.raises(UsageError, match=r"outside of the workspace|lies in the workspace"):
        place.referred(text)


def test_no_path_and_no_link_leads_to_a_program_in_the_workspace(place: Place) -> None:
    inner = place.program(place.work, "mine", "echo x")
    (place.bin / "alias").symlink_to(inner)
    (place.work / "sh").symlink_to("/bin/sh")

    (place.user / "other-way").symlink_to(place.work)
    for text in (
        f"cmd://sh {place.user}/other-way/mine",
        f"cmd://sh -c 'x=1; . {place.user}/other-way/mine'",
        f"cmd://sh --file={inner}",
        f"cmd://{inner}",
        "cmd://alias",
        f"cmd://{place.work}/sh",
        f"cmd://sh {inner}",
        f"cmd://env A={inner} sh",
    ):
        with pytest.raises(UsageError, match="lies in the workspace"):
            place.referred(text)


@pytest.mark.parametrize("text", ["cmd://'", "cmd:// ", "cmd://''"])
def test_a_command_line_that_is_none_is_told(place: Place, text: str) -> None:
    with pytest.raises(UsageError, match="secret X"):
        place.referred(text)


def test_a_reference_shows_the_path_that_will_be_read(place: Place) -> None:
    (place.user / "key").touch()
    (place.work / "innocent").symlink_to(place.user / "key")

    assert str(place.referred("file://innocent")) == f"put the contents of {place.user}/key into the run, as X"


def test_a_value_fits_into_a_variable() -> None:
    assert 32 * os.sysconf("SC_PAGE_SIZE") > LIMIT_BYTES


OP = """
[ "$#" = 2 ] && [ "$1" = read ] && [ "$2" = "op://My Vault/npm/section/token?attribute=otp" ] || exit 9
[ "$PWD" = / ] || exit 8
[ -z "$(env | grep -v -e ^PATH= -e ^TOKEN= -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=)" ] && echo s3cr3t-of-op"""


async def test_a_field_of_1password_is_read_by_its_own_program_and_nothing_else_is_said_to_it(place: Place) -> None:
    program = place.program(place.bin, "op", OP)
    place.program(place.work / "bin", "op", "echo evil")
    text = "op://My Vault/npm/section/token?attribute=otp"

    assert await place.fetch(text) == "s3cr3t-of-op"
    assert str(place.referred(text)) == (
        f"run outside of any sandbox: {program} read '{text}', and put what it says into the run, as X"
    )


@pytest.mark.parametrize(
    ("said", "problem", "hint"),
    [
        ("[ERROR] 2026/01/01 You are not currently signed in. Please run `op signin`", "not signed in to 1Password",
         "eval $(op signin)"),
        ("No accounts configured for use with 1Password CLI.", "not signed in to 1Password", "op signin"),
        ("first\n[ERROR] \033[1mno item", "ended with 1: [ERROR] \\x1b[1mno item", "secrets.X"),
        ("", "op ended with 1", "secrets.X"),
    ],
)  # fmt: skip
async def test_what_1password_refuses_is_told_with_what_to_do(place: Place, said: str, problem: str, hint: str) -> None:
    (place.bin / "said").write_text(said)
    place.program(place.bin, "op", f"cat {place.bin}/said >&2; exit 1")

    with pytest.raises(UsageError) as caught:
        await place.fetch("op://vault/item/field")

    assert problem in caught.value.problem
    assert hint in caught.value.hint


def test_1password_must_be_installed_outside_of_the_workspace(place: Place) -> None:
    place.program(place.work / "bin", "op", "echo evil")

    with pytest.raises(UsageError, match="no program op outside of the workspace") as caught:
        place.referred("op://vault/item/field")
    assert caught.value.hint == "install the 1Password CLI (op), then run: op signin"

    (place.bin / "op").symlink_to(place.work / "bin" / "op")
    with pytest.raises(UsageError, match="which a run can change"):
        place.referred("op://vault/item/field")


@pytest.mark.parametrize(
    "text", ["op://", "op://vault", "op://vault/item", "op:///item/field", "op://a/b/c/d/e", "op://a/b/c?d?e"]
)
def test_what_names_no_field_is_refused(place: Place, text: str) -> None:
    place.program(place.bin, "op", "echo never")

    with pytest.raises(UsageError, match="names no field of 1Password"):
        place.referred(text)


async def test_what_a_plugin_fetches_is_told_before_and_fetched_with_the_users_variables(place: Place) -> None:
    assert str(place.referred("odd:///x")) == ("look up /x with your key, and put what that gives into the run, as X")
    assert await place.fetch("odd:///x") == "s3cr3t/x for s3cr3t"


async def test_what_a_plugin_refuses_or_does_wrong_is_told(place: Place) -> None:
    with pytest.raises(UsageError, match="X makes no sense: it names nothing odd") as caught:
        place.referred("odd://x")
    assert caught.value.hint == "write odd:///x"
    with pytest.raises(UsageError, match="X cannot be had: there is no such thing") as caught:
        await place.fetch("odd:///gone")
    assert caught.value.hint == "run: odd list"
    with pytest.raises(UsageError, match=r"could not be fetched .ValueError.") as caught:
        await place.fetch("odd:///bug")
    assert "s3cr3t" not in caught.value.problem + caught.value.hint


def test_a_scheme_that_nobody_knows_is_told_without_what_stands_behind_it(place: Place) -> None:
    with pytest.raises(UsageError, match="the secret X: nothing that is installed fetches postgres://") as caught:
        place.referred("postgres://user:s3cr3t@db.example/x")
    assert "s3cr3t" not in caught.value.problem + caught.value.hint
    assert "cmd://, env://, file://, odd://, op://" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        place.referred("ssm:///x")
    assert caught.value.hint == "run: pip install moat-provider-aws"
