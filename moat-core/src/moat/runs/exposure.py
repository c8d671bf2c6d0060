"""Finds obvious secrets in a workspace, so that the user is told what the run will see. Names files, never contents.

Advice, not protection: bounded in time and number, and it may miss any of them. Follows no link and changes nothing.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

from moat.api.light import dataclass

LIMIT_S = 0.5  # a pause before a command that nobody notices
LIMIT_ENTRIES = 20_000
LIMIT_DEPTH = 6
LIMIT_FINDINGS = 20
_READ_BYTES = 65_536

_SKIPPED = frozenset(
    {"node_modules", ".venv", "venv", "__pycache__", "target", ".tox", ".mypy_cache", "vendor", ".cache"}
)
_HARMLESS_ENV = (".example", ".sample", ".template", ".dist", ".defaults")
_KEYS = frozenset({"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"})
_NAMED = {
    ".netrc": "logins",
    "_netrc": "logins",
    ".git-credentials": "git logins",
    "credentials.json": "a key",
    "application_default_credentials.json": "Google Cloud credentials",
    ".vault-token": "a Vault token",
}
# File name → what gives it away, compiled when there is one, and what it then holds. `${…}` and empty values are
# references, not secrets.
_TELLING = {
    ".npmrc": (rb"_(?:authToken|password|auth)\s*=\s*[\"']?(?!\$\{)[^\s\"']", "an npm token"),
    ".pypirc": (rb"(?m)^\s*password\s*[=:]\s*\S", "a PyPI password"),
    "config": (rb"(?m)^\s*(?:url|pushurl)\s*=\s*https?://[^/\s@]+@", "a login in a git remote"),
    "credentials": (rb"aws_secret_access_key\s*=\s*\S", "AWS keys"),
    "config.json": (rb"\"auth\"\s*:\s*\"[^\"]", "a registry login"),
}
_ONLY_IN = {"config": ".git", "credentials": ".aws", "config.json": ".docker"}
_PRIVATE_KEY = rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Exposed:
    """A file that looks like a secret. path: relative to the workspace. what: in a few words."""

    path: str
    what: str


def exposed_secrets(
    workspace: Path, hidden: Collection[str] = (), *, clock: Callable[[], float] = time.monotonic
) -> tuple[Exposed, ...]:
    """Return the obvious secrets in workspace, sorted by path; at most LIMIT_FINDINGS, within about LIMIT_S.

    hidden: paths below it that the run does not see.
    """
    deadline = clock() + LIMIT_S
    found: list[Exposed] = []
    for entry in islice(_files(workspace, lambda: clock() > deadline), LIMIT_ENTRIES):
        if (what := _judge(entry)) and not _is_hidden(path := entry.relative_to(workspace), hidden):
            found.append(Exposed(str(path), what))
        if len(found) == LIMIT_FINDINGS:
            break
    return tuple(sorted(found, key=lambda item: item.path))


def describe(found: tuple[Exposed, ...], shown: int = 5) -> str:
    """Return one line that names the first few; empty when there is none."""
    if not found:
        return ""
    named = ", ".join(f"{_printable(item.path)} ({item.what})" for item in found[:shown])
    rest = f" and {len(found) - shown} more" if len(found) > shown else ""
    return f"the run can read secrets in the workspace: {named}{rest}; hide them with --exclude or workspace.exclude"


def _files(folder: Path, is_late: Callable[[], bool]) -> Iterator[Path]:
    """Yield the files below folder, nearest first, so that a limit cuts off the deepest; end when it is late."""
    level = [folder]
    for _ in range(LIMIT_DEPTH):
        deeper: list[Path] = []
        for parent in level:
            for entry in _entries(parent):
                if is_late():
                    return
                if not entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path)
                elif entry.name == ".git":
                    yield Path(entry.path) / "config"
                elif entry.name not in _SKIPPED:
                    deeper.append(Path(entry.path))
        level = deeper


def _is_hidden(path: Path, hidden: Collection[str]) -> bool:
    return any(str(each) in hidden for each in (path, *path.parents))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(islice(entries, LIMIT_ENTRIES), key=lambda entry: entry.name)
    except OSError:
        return []  # what we cannot read is not for us to report


def _judge(path: Path) -> str:
    """Return what path seems to hold, or nothing."""
    name = path.name
    if name == ".env" or (name.startswith(".env.") and not name.endswith(_HARMLESS_ENV)):
        return "variables"
    if name in _KEYS:
        return "a private key"
    if name in _NAMED:
        return _NAMED[name]
    if name.endswith((".pem", ".key")):
        return "a private key" if re.search(_PRIVATE_KEY, _beginning(path)) else ""
    if name in _TELLING and _ONLY_IN.get(name, path.parent.name) == path.parent.name:
        pattern, what = _TELLING[name]
        return what if re.search(pattern, _beginning(path)) else ""
    return ""


def _beginning(path: Path) -> bytes:
    """Return the first bytes of a regular file; nothing for whatever else has its name (a pipe would block)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _READ_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _printable(text: str) -> str:
    """Return text without what could steer a terminal: file names are chosen by others."""
    return "".join(c if c.isprintable() else "?" for c in text)
