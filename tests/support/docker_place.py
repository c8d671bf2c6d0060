"""Where the docker runtime's tests run: `support.docker_run` as root or another user, and a look at the engine."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from support.docker_run import IMAGE
from support.installation import USER, end, installed_for_users
from support.sealed import RUN_ID

SUPPORT = Path(__file__).parent
LEFT_BY_A_RUN = ("--filter", f"label=moat.run={RUN_ID}", "--format", "{{.ID}}")
Done = subprocess.CompletedProcess[bytes]


@dataclass(frozen=True)
class DockerPlace:
    """A user, a MOAT_HOME and a workspace. root: the folder around both."""

    user: str
    root: Path
    python: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.root / "work"

    @property
    def home(self) -> Path:
        return self.root / ".moat"

    def start(
        self,
        *argv: str,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        variables: dict[str, str] | None = None,
        **order: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a run of argv. order: what else docker_run is told. variables: of the launcher."""
        (self.root / "report").unlink(missing_ok=True)
        wanted = {"home": str(self.home), "workspace": str(self.workspace), "report": str(self.root / "report")}
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.root), "PYTHONPATH": str(self.root / "tests")}
        process = subprocess.Popen(
            [self.python, "-m", "support.docker_run", json.dumps({**wanted, "argv": argv, **order})],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**environment, **(variables or {})},
            cwd=self.root,
            user=self.user or None,
            group=self.user or None,
            extra_groups=[grp.getgrnam("docker").gr_gid] if self.user else None,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *argv: str, input: bytes = b"", variables: dict[str, str] | None = None, **order: Any) -> Done:
        """Run argv to its end, its output captured."""
        process = self.start(*argv, stdin=subprocess.PIPE, variables=variables, **order)
        out, err = process.communicate(input, timeout=60)
        self.started.remove(process)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def clear(self) -> None:
        """Kill what still runs, and remove what it could not."""
        for process in self.started:
            end(process)
        if self.started:
            for name in left_behind():
                docker("rm", "-f", "-v", name)
        self.started.clear()

    def report(self) -> dict[str, str]:
        """Return what the launcher reported so far."""
        path = self.root / "report"
        lines = path.read_text().splitlines() if path.exists() else []
        return {key: value for line in lines for key, value in json.loads(line).items()}


@contextlib.contextmanager
def docker_place(user: str) -> Iterator[DockerPlace]:
    """Make a place for user, "" for the one who runs the tests, and take away what its runs left."""
    root = Path(tempfile.mkdtemp(prefix="moat-docker-"))
    shutil.copytree(SUPPORT, root / "tests" / "support", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "work").mkdir()
    if user:
        owner = pwd.getpwnam(USER)
        for path in (root, root / "work"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    python = installed_for_users().with_name("python") if user else Path(sys.executable)
    made = DockerPlace(user, root, python)
    try:
        yield made
    finally:
        made.clear()
        shutil.rmtree(root, ignore_errors=True)


def docker(*arguments: str) -> str:
    """Run the docker client and return what it prints, stripped."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout or done.stderr).strip()


def left_behind() -> list[str]:
    """Return the containers and networks of the tests' run that the engine has, running or not."""
    return [*docker("ps", "-a", *LEFT_BY_A_RUN).split(), *docker("network", "ls", *LEFT_BY_A_RUN).split()]


def gate_id() -> str:
    """Return the running gate's id, "" when there is none."""
    return docker("ps", "-q", "--no-trunc", "--filter", f"name=moat-{RUN_ID}-gate")


def is_there() -> bool:
    """Whether an engine answers and has the image."""
    return shutil.which("docker") is not None and docker("image", "inspect", "-f", "{{.Os}}", IMAGE) == "linux"
