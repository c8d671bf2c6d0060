"""moat as a user has it, for tests of what plugins bring: a folder of its own, the `moat` command, a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

LIMIT_S = 30.0  # for what must come, on machines that are busy
_PROGRAM = "import sys; from moat.cli.start import main; sys.exit(main())"


class Place:
    """One MOAT_HOME with a workspace beside it. Close it: the daemon is stopped and the folder removed."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="moat-place-"))  # short: sockets lie in it
        self.workspace = self.root / "work"
        self.workspace.mkdir()
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def home(self) -> Path:
        """The MOAT_HOME."""
        return self.root / ".moat"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a command; of the caller's only where programs are."""
        own = {"HOME": str(self.root), "MOAT_HOME": str(self.home), "PATH": os.environ.get("PATH", os.defpath)}
        return {**own, "LANG": "C.UTF-8", "MOAT_KEYRING_BACKEND": "file", "MOAT_NO_PROMPT": "1", **(extra or {})}

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line of `moat` with these words, under the Python that runs the tests."""
        return [sys.executable, "-c", _PROGRAM, *map(str, words)]

    def start(
        self, *words: str | Path, stdin: int | IO[bytes] = subprocess.DEVNULL, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `moat`, its output piped; it is ended with the place at the latest."""
        process = subprocess.Popen(
            self.command(*words), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environment(env), cwd=self.root, start_new_session=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def run(
        self, *words: str | Path, input: bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `moat` to its end. Raises AssertionError when that does not come."""
        process = self.start(*words, stdin=subprocess.PIPE, env=env)
        try:
            out, err = process.communicate(input, timeout=2 * LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"moat {words} did not end: {process.communicate()!r}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ok(self, *words: str | Path, input: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
        """Run `moat`, expect exit code 0, return its standard output."""
        done = self.run(*words, input=input, env=env)
        if done.returncode != 0:
            raise AssertionError(f"moat {words}: {done.returncode} {done.stdout!r} {done.stderr!r}")
        return done.stdout

    def runs(self) -> dict[str, dict[str, Any]]:
        """Return what `moat list --json` says of each run, by name."""
        return {run["name"]: run for run in json.loads(self.ok("list", "--json"))}

    def is_over(self, name: str) -> bool:
        """Whether a run has ended, as far as is written down."""
        return self.runs()[name]["state"] not in ("starting", "running")

    def close(self) -> None:
        """End what was started here, stop the daemon, remove the folder."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:  # not read to its end: what an unsealed run left behind may hold the other
                    with contextlib.suppress(OSError):
                        pipe.close()
        self.run("proxy", "stop")
        shutil.rmtree(self.root, ignore_errors=True)


def eventually(what: str, holds: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Poll until holds() is true. Raises AssertionError, saying what was waited for, when that takes too long."""
    limit = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > limit:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.02)
