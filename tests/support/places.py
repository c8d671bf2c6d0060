"""A place where runs live: an installation, a runtime, a grant; with the few lines that every end-to-end test needs."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

import pytest

from support.inside import PLACE as INSIDE
from support.installation import USER, Done, Installation
from support.services import Services, expected

IMAGE = "debian:bookworm-slim"
_DOCKER = pytest.mark.docker
_BUBBLEWRAP = pytest.mark.bubblewrap
PLACES = (
    pytest.param(("bubblewrap", ""), id="bubblewrap", marks=_BUBBLEWRAP),
    pytest.param(("bubblewrap", USER), id="bubblewrap-as-a-user", marks=_BUBBLEWRAP),
    pytest.param(("docker", ""), id="docker", marks=_DOCKER),
)
# For what does not depend on who the user is.
ROOT_PLACES = pytest.mark.parametrize("place", [PLACES[0], PLACES[2]], indirect=True)
_numbers = itertools.count(1)


@dataclass
class Place:
    """Where a test's runs live. secret: what the services want to see, and nobody inside may have."""

    installation: Installation
    runtime: str
    secret: str = field(repr=False)
    services: Services
    inside: Path

    @property
    def user(self) -> str:
        return self.installation.user

    def workspace(self) -> Path:
        """Make an empty workspace that belongs to the user."""
        marker = self.installation.file(f"work{next(_numbers)}/.made", "")
        return marker.parent

    def arguments(self, *command: str, flags: tuple[str, ...] = (), workspace: Path | None = None) -> list[str]:
        """Return the arguments of `moat` that run a command here, with the grant and the programs."""
        folder = workspace or self.workspace()
        fixed = ["--runtime", self.runtime, "--grant", "github", "--mount", f"{self.inside}:{INSIDE}:ro"]
        return ["run", str(folder), *fixed, *flags, "--", *command]

    def run(
        self,
        *command: str,
        flags: tuple[str, ...] = (),
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        workspace: Path | None = None,
    ) -> Done:
        """Run a command inside, to its end."""
        arguments = self.arguments(*command, flags=flags, workspace=workspace)
        return self.installation.run(*arguments, input=input, env=env)

    def ok(self, *command: str, flags: tuple[str, ...] = (), input: bytes = b"", workspace: Path | None = None) -> str:
        """Run a command inside, expect exit 0, return its standard output."""
        done = self.run(*command, flags=flags, input=input, workspace=workspace)
        log = self.installation.logs()
        assert done.returncode == 0, f"{done.stdout.decode()}\n{done.stderr.decode()}\n{log}"
        return done.stdout.decode(errors="replace")

    def start(
        self, *command: str, flags: tuple[str, ...] = (), stdin: int | IO[bytes] = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a command inside; its output is piped."""
        return self.installation.start(*self.arguments(*command, flags=flags), stdin=stdin)

    def fresh_path(self, what: str) -> str:
        """Return a path at api.github.com that nobody asked for before."""
        return f"/client/{what.replace(' ', '-')}/{next(_numbers)}"

    def assert_spent(self, path: str, host: str = "api.github.com") -> None:
        """Fail unless path was asked for, and every time with the real credential."""
        asked = self.services.asked(path)
        assert asked, f"nobody asked for {path}"
        assert {each.header("Authorization") for each in asked} == {expected(host, self.secret)}


@cache
def docker_answers() -> bool:
    """Whether an engine answers and has the image."""
    return _succeeds("docker", "image", "inspect", IMAGE)


@cache
def sandboxes_work() -> bool:
    """Whether bubblewrap is here."""
    return shutil.which("bwrap") is not None


@cache
def image_has(program: str) -> bool:
    """Whether the image has a program."""
    return _succeeds("docker", "run", "--rm", "--network", "none", IMAGE, "sh", "-c", f"command -v {program}")


def _succeeds(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 0
    except FileNotFoundError:
        return False
