"""Fetches on this machine what `secrets` of a moat.yaml refer to; the values become variables that the run can read.

    env://NAME      a variable of the shell that moat runs in
    file://PATH     a file's contents: absolute, relative to the workspace, or ~
    cmd://WORDS     what a program says; no shell, no input, and never a program that the run could have changed
    op://V/I/F      what the 1Password CLI says to `op read op://V/I/F`
    any other       what a plugin fetches (`moat.api.SecretSource`)

`referred` looks, so that the user can be shown what is meant; `fetch` does just that or fails. A value stands in no
error, no log and no repr.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from moat.api.errors import GrantFailed, MoatError, SecretFailed, UsageError
from moat.config.mounts import absolute
from moat.config.settings import UpstreamSettings
from moat.paths import Home

if TYPE_CHECKING:
    from moat.api.credentials import CommandResult, Host

LIMIT_BYTES = 65_536  # of a value; the kernel takes no longer variable than 128 KiB (execve(2), MAX_ARG_STRLEN)
_PATHS = re.compile(r"/[^\s'\"=:,;]*")  # in a word, whatever stands before it: --file=/x
_OP = re.compile(r"op://[^/?]+(?:/[^/?]+){2,3}(?:\?[^?]*)?")  # vault, item, perhaps a section, field, attribute
TIMEOUT_S = 60.0  # a program may ask somebody for a finger


_SAID_CHARS = 200
_NO_SESSION = ("not currently signed in", "not signed in", "no accounts configured", "session expired")  # op says

_BY_PROGRAM = ("cmd", "op")


class Sources(Protocol):
    """What plugins fetch; `Plugins` is one."""

    def describe_secret(self, scheme: str, reference: str) -> str:
        """Return what fetching a secret does."""
        ...

    async def fetch_secret(self, scheme: str, reference: str, host: Host) -> str:
        """Return a secret's value."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a variable's value comes from. kind: the scheme.

    words: the variable, the real path, the program's command line, or, for a plugin, the reference and what is done.
    """

    name: str
    kind: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        """Say what will be done."""
        if self.kind == "env":
            return f"put your variable {self.words[0]} into the run, as {self.name}"
        if self.kind == "file":
            return f"put the contents of {self.words[0]} into the run, as {self.name}"
        if self.kind not in _BY_PROGRAM:
            return f"{self.words[1]}, and put what that gives into the run, as {self.name}"
        return (
            f"run outside of any sandbox: {shlex.join(self.words)}, and put what it says into the run, as {self.name}"
        )


def referred(
    name: str, text: str, *, workspace: Path, user_home: Path, env: Mapping[str, str], sources: Sources
) -> Reference:
    """Return what text, `scheme://…`, means here. workspace: the real one, which the run can write.

    Raises UsageError for a program that is not there or that a run could have changed, and for a scheme that nobody
    knows.
    """
    scheme, _, rest = text.partition("://")
    if scheme == "env":
        return Reference(name, "env", (rest,))
    if scheme == "file":
        return Reference(name, "file", (str(absolute(rest, workspace, user_home).resolve()),))
    if scheme == "cmd":
        return Reference(name, scheme, _command(name, rest, workspace, env))
    if scheme == "op":
        return Reference(name, scheme, _one_password(name, text, workspace, env))
    try:
        return Reference(name, scheme, (rest, sources.describe_secret(scheme, rest)))
    except SecretFailed as failure:
        raise UsageError(f"the secret {name} makes no sense: {failure.problem}", hint=failure.hint) from None
    except UsageError as failure:
        raise UsageError(f"the secret {name}: {failure.problem}", hint=failure.hint) from None


async def fetch(reference: Reference, *, workspace: Path, home: Home, env: Mapping[str, str], sources: Sources) -> str:
    """Return the value, without the newline at its end. Raises UsageError when there is none."""
    match reference.kind:
        case "env":
            value = _from_variable(reference, env)
        case "file":
            value = _from_file(reference, home)
        case "cmd" | "op":
            value = await _from_program(reference, workspace, env)
        case _:
            value = await _from_plugin(reference, home, env, sources)
    value = value.removesuffix("\n").removesuffix("\r")
    if not value or "\0" in value or len(value) > LIMIT_BYTES:
        what = "is empty" if not value else "is no text" if "\0" in value else f"is longer than {LIMIT_BYTES}"
        raise _failed(reference, f"what it refers to {what}")
    return value


def _command(name: str, text: str, workspace: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command line with its program's real path. A run can write the workspace: none of it is run."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words:
        raise UsageError(f"the secret {name} names no program", hint="write it as in cmd://op read op://vault/item")
    hint = "install it, or name it by its absolute path"
    paths = (_program(name, words[0], workspace, env, hint), *words[1:])
    if any(_is_in(workspace, Path(each)) for word in paths for each in _PATHS.findall(word)):
        problem = f"the secret {name} would run what lies in the workspace, which a run can change"
        raise UsageError(problem, hint="put the program somewhere else")
    return paths


def _one_password(name: str, text: str, workspace: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command line by which the 1Password CLI reads text; it is given nothing else."""
    if not _OP.fullmatch(text):
        problem = f"the secret {name} names no field of 1Password"
        raise UsageError(problem, hint="write it as in op://vault/item/field")
    hint = "install the 1Password CLI (op), then run: op signin"
    program = _program(name, "op", workspace, env, hint)
    if _is_in(workspace, Path(program)):
        problem = f"the secret {name} would run what lies in the workspace, which a run can change"
        raise UsageError(problem, hint=hint)
    return (program, "read", text)


def _program(name: str, word: str, workspace: Path, env: Mapping[str, str], hint: str) -> str:
    """Return the path of a program that a run cannot have put there. Raises UsageError where there is none."""
    found = shutil.which(word, path=_path_outside(workspace, env))
    if found is None or not Path(found).is_absolute():
        raise UsageError(f"the secret {name}: there is no program {word} outside of the workspace", hint=hint)
    return found


def _path_outside(workspace: Path, env: Mapping[str, str]) -> str:
    """Return the folders of PATH that no run of this workspace can write."""
    folders = [Path(each) for each in env.get("PATH", os.defpath).split(os.pathsep) if each]
    return os.pathsep.join(str(each) for each in folders if each.is_absolute() and not _is_in(workspace, each))


def _is_in(workspace: Path, path: Path) -> bool:
    return path.is_relative_to(workspace) or path.resolve().is_relative_to(workspace)


def _from_variable(reference: Reference, env: Mapping[str, str]) -> str:
    if (value := env.get(reference.words[0])) is None:
        raise _failed(reference, f"the variable {reference.words[0]} is not set")
    return value


def _from_file(reference: Reference, home: Home) -> str:
    path = Path(reference.words[0])
    if path.is_relative_to(home.root.resolve()):
        raise _failed(reference, f"{path} is moat's own")
    try:
        data = _read(path)
    except OSError as failure:
        raise _failed(reference, f"{path} cannot be read: {os.strerror(failure.errno or 0)}") from None
    if data is None:
        raise _failed(reference, f"{path} is no file, or no longer the one that it was")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _failed(reference, f"{path} is no text") from None


def _read(path: Path) -> bytes | None:
    """Return what a file begins with, None where path is no file, or now a link to one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or Path(f"/proc/self/fd/{descriptor}").readlink() != path:
            return None
        with open(descriptor, "rb", closefd=False) as file:  # a descriptor is no path
            return file.read(LIMIT_BYTES + 2)
    finally:
        os.close(descriptor)


async def _from_program(reference: Reference, workspace: Path, env: Mapping[str, str]) -> str:
    """Run the program away from the workspace, with a PATH that does not lead into it."""
    from moat.host import RealHost  # with all of TLS, which most runs need not wait for

    around = {**env, "PATH": _path_outside(workspace, env)}
    host = RealHost(around, UpstreamSettings(), lambda _: None, folder=Path("/"))
    try:
        done = await host.run(*reference.words, timeout_s=TIMEOUT_S)
    except GrantFailed as failure:
        raise _failed(reference, failure.problem) from None
    if done is None:
        raise _failed(reference, f"{reference.words[0]} cannot be started")
    if done.exit_code != 0:
        raise _unwilling(reference, done)
    return done.stdout


def _unwilling(reference: Reference, done: CommandResult) -> UsageError:
    """Return why a program did not say it. What cmd:// runs may say anything; what op does is known."""
    from moat.runs.wishes import one_line

    why = f"{reference.words[0]} ended with {done.exit_code}"
    if reference.kind != "op":
        return _failed(reference, why)
    said = one_line((done.stderr.strip().splitlines() or [""])[-1])[:_SAID_CHARS]
    if any(words in done.stderr.lower() for words in _NO_SESSION):
        problem = f"the secret {reference.name} cannot be had: you are not signed in to 1Password"
        return UsageError(problem, hint="run: eval $(op signin), or set OP_SERVICE_ACCOUNT_TOKEN")
    return _failed(reference, f"{why}{said and f': {said}'}")


async def _from_plugin(reference: Reference, home: Home, env: Mapping[str, str], sources: Sources) -> str:
    """Have a plugin fetch it, with the user's own environment and settings."""
    from moat.config.settings import load_settings
    from moat.host import RealHost

    host = RealHost(env, load_settings(home).upstream, lambda _: None, folder=Path("/"))
    try:
        return await sources.fetch_secret(reference.kind, reference.words[0], host)
    except MoatError as failure:
        problem = f"the secret {reference.name} cannot be had: {failure.problem}"
        raise UsageError(problem, hint=failure.hint or f"see secrets.{reference.name} in moat.yaml") from None


def _failed(reference: Reference, why: str) -> UsageError:
    hint = f"see secrets.{reference.name} in moat.yaml"
    return UsageError(f"the secret {reference.name} cannot be had: {why}", hint=hint)
