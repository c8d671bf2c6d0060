"""moat as a user has it: a MOAT_HOME, the `moat` program, a clean environment; as root or as `tester`."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

from support.leaks import leaks_below
from support.supervisors import read

ROOT = Path(__file__).parents[2]
ROOTS = "/etc/ssl/certs/ca-certificates.crt"
USER = "tester"
Done = subprocess.CompletedProcess[bytes]


@dataclass
class Installation:
    """One MOAT_HOME. user: "" for the one who runs the tests. env: what the user's shell has besides HOME and PATH.

    through: words before `moat` that put it elsewhere (`nsenter …`), run as root, who then becomes user.
    """

    home: Path
    moat: Path
    user: str = ""
    env: dict[str, str] = field(default_factory=dict)
    through: tuple[str, ...] = ()

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a command; nothing of the test's own gets in."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self.moat.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "MOAT_HOME": str(self.home / ".moat"),
            "MOAT_KEYRING_BACKEND": "file",
            "MOAT_NO_PROMPT": "1",
            **self.env,
            **(extra or {}),
        }

    def start(
        self,
        *arguments: str | Path,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **options: int,
    ) -> subprocess.Popen[bytes]:
        """Start `moat` with these arguments, its output piped."""
        become = (*self.through, *_becoming(self.user)) if self.through else ()
        user = None if self.through else self.user or None
        return subprocess.Popen(
            [*become, str(self.moat), *map(str, arguments)],
            stdin=stdin,
            stdout=options.get("stdout", subprocess.PIPE),
            stderr=options.get("stderr", subprocess.PIPE),
            env=self.environment(env),
            cwd=cwd or self.home,
            user=user,
            group=user,
            extra_groups=_groups(user or ""),
            start_new_session=True,
        )

    def run(
        self,
        *arguments: str | Path,
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60,
    ) -> Done:
        """Run `moat` to its end and return what it said."""
        process = self.start(*arguments, stdin=subprocess.PIPE, env=env, cwd=cwd)
        try:
            out, err = process.communicate(input, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"moat {arguments} did not end: {out!r} {err!r}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ok(
        self,
        *arguments: str | Path,
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60,
    ) -> str:
        """Run `moat`, expect exit 0 and return its standard output."""
        done = self.run(*arguments, input=input, env=env, cwd=cwd, timeout_s=timeout_s)
        assert done.returncode == 0, f"{done.stdout.decode()}\n{done.stderr.decode()}\n{self.logs()}"
        return done.stdout.decode()

    def grant(self, name: str, secret: str) -> None:
        """Store a credential without asking its service."""
        self.ok("grant", name, "--with-token", "--no-validate", input=secret.encode())

    def configure(self, settings: Mapping[str, object]) -> None:
        """Write config.yaml; JSON is YAML."""
        folder = self.home / ".moat"
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        (folder / "config.yaml").write_text(json.dumps(settings))
        self._own(folder)

    def file(self, name: str, content: str | bytes, mode: int = 0o644) -> Path:
        """Write a file below HOME, owned by the user, and return its path."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        self._own(self.home)
        return path

    def logs(self) -> str:
        """Return the end of the daemon's log."""
        path = self.home / ".moat" / "daemon" / "daemon.log"
        return path.read_text()[-4000:] if path.exists() else ""

    def daemon_pid(self) -> int:
        """Return the daemon's process id; 0 when there is none."""
        status = json.loads(self.run("proxy", "status", "--json").stdout or b"{}")
        return int(status.get("pid") or 0)

    def close(self) -> None:
        """Stop the daemon, and wait for the processes that held runs: they clean up once it is gone.

        A daemon that is busy takes 20 s to leave, and some more to be killed.
        """
        self.run("proxy", "stop", timeout_s=60)
        eventually("every process of its runs has ended", lambda: not self.processes())

    def processes(self) -> list[str]:
        """Return the command lines of live processes that were started with this MOAT_HOME."""
        mark = f"MOAT_HOME={self.home / '.moat'}\0".encode()
        own = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and mark in read(entry / "environ")]
        return [read(entry / "cmdline").replace(b"\0", b" ").decode(errors="replace") for entry in own]

    def _own(self, path: Path) -> None:
        if self.user:
            subprocess.run(["chown", "-R", f"{self.user}:", str(path)], check=True)


@contextlib.contextmanager
def installation(user: str = "", **env: str) -> Iterator[Installation]:
    """Make an installation in a short-named folder (sockets have short paths in real homes too) and take it away."""
    home = Path(tempfile.mkdtemp(prefix="moat-test-"))
    if user:
        os.chown(home, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    made = Installation(home, installed_for_users() if user else Path(sys.executable).with_name("moat"), user, env)
    try:
        yield made
    finally:
        made.close()
        assert_no_secret(home)
        shutil.rmtree(home, ignore_errors=True)


def assert_no_secret(home: Path) -> None:
    """Fail when a test's secret stands in anything that moat wrote below home."""
    assert list(leaks_below(home / ".moat")) == []


@cache
def installed_for_users() -> Path:
    """Install moat where an ordinary user can read it, with Debian's own Python; return the program."""
    folder = Path(tempfile.mkdtemp(prefix="moat-installed-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    python = folder / "bin" / "python"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", folder], check=True)
    wheels = folder / "wheels"
    for project in sorted(ROOT.glob("moat-core")) + sorted(ROOT.glob("moat-provider-github")):
        _quiet([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(wheels), str(project)])
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(Path.home()),
        "SSL_CERT_FILE": ROOTS,
        "UV_SYSTEM_CERTS": "1",
        "PIP_CERT": ROOTS,
    }
    uv = Path(sys.executable).with_name("uv")
    installer = [str(uv), "pip"] if uv.exists() else [sys.executable, "-m", "pip", f"--python={python}"]
    target = ["--python", str(python), "--link-mode", "copy"] if uv.exists() else []
    constraints = [f"--constraint={path}" for path in ROOT.glob("constraints.txt")]
    _quiet([*installer, "install", *target, *constraints, *map(str, sorted(wheels.iterdir()))], env)
    return folder / "bin" / "moat"


def _quiet(argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _groups(user: str) -> list[int] | None:
    return os.getgrouplist(user, pwd.getpwnam(user).pw_gid) if user else None


def _becoming(user: str) -> tuple[str, ...]:
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--") if user else ()


def end(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> int:
    """Send a signal to a process of ours and wait for its end."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=30)
    return process.returncode


def eventually(what: str, holds: object, deadline_s: float = 30.0) -> None:
    """Poll until holds() is true; fail, saying what was waited for, when that takes too long."""
    assert callable(holds)
    limit = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < limit, f"waited in vain: {what}"
        time.sleep(0.02)
