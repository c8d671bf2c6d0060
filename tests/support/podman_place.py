"""podman's service for tests: a look at the machine's, and one of an ordinary user's own, with an image."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from moat.runtimes.podman_engine import SYSTEM_SOCKET

from support.installation import ROOT, USER, end, eventually

TINY = "tiny:test"
WITH_PODMAN = (
    pytest.mark.podman,
    pytest.mark.skipif(not SYSTEM_SOCKET.is_socket(), reason="no service of podman's; scripts/podman.sh starts one"),
)
_PROGRAMS = ("cat", "curl", "dash", "git", "grep", "id", "mkdir", "sleep", "touch", "true")


def podman(*arguments: str, url: str = f"unix://{SYSTEM_SOCKET}") -> str:
    """Run the podman client against a service, the machine's, and return what it prints, stripped."""
    command = ["podman", "--url", url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout or done.stderr).strip()


@dataclass(frozen=True)
class Rootless:
    """A user's service. root: its folder, which is the user's XDG_RUNTIME_DIR and HOME too."""

    root: Path

    @property
    def url(self) -> str:
        return f"unix://{self.root}/podman/podman.sock"


@contextlib.contextmanager
def rootless_service() -> Iterator[Rootless]:
    """Run podman's service as an ordinary user, with TINY, and take away all that it kept."""
    root = Path(tempfile.mkdtemp(prefix="moat-podman-"))
    owner = pwd.getpwnam(USER)
    made = Rootless(root)
    (root / "podman").mkdir()
    config = root / ".config" / "containers"
    config.mkdir(parents=True)
    config.joinpath("storage.conf").write_text('[storage]\ndriver = "overlay"\n')
    shutil.copy(ROOT / ".build" / "podman" / "containers.conf", config)  # scripts/podman.sh
    for path in (root, *root.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    env = {"HOME": str(root), "XDG_RUNTIME_DIR": str(root), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    with (root / "service.log").open("wb") as log:
        process = subprocess.Popen(
            ["podman", "system", "service", "--time", "0", made.url],
            env=env, cwd=root, user=USER, group=USER, extra_groups=[], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        eventually("the service listens", lambda: (root / "podman" / "podman.sock").is_socket())
        subprocess.run(
            ["podman", "--url", made.url, "import", "-", TINY], input=tiny_image(), check=True, capture_output=True
        )
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it is a child's, in a user namespace, that serves
        end(process)
        remove = ["podman", "unshare", "rm", "-rf", str(root / ".local")]  # much of it belongs to numbers of its own
        subprocess.run(remove, env=env, cwd="/", user=USER, group=USER, extra_groups=[], check=False)
        for kept in root.rglob("pause.pid"):  # what keeps the user namespace for the next command
            subprocess.run(["kill", "-KILL", kept.read_text()], user=USER, capture_output=True, check=False)
        shutil.rmtree(root, ignore_errors=True)


def tiny_image() -> bytes:
    """Return an archive of a few of this machine's programs and what they load: an image of a few megabytes."""
    files = {Path("/usr/bin", name) for name in _PROGRAMS}
    for program in list(files):
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        files |= {Path(path) for path in re.findall(r"(/\S+) \(0x", told)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for path in sorted(files):
            tar.add(path, arcname=str(path).lstrip("/"))
        for name, target in (("bin", "usr/bin"), ("usr/bin/sh", "dash")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name in ("etc", "proc", "sys", "dev", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        passwd = b"root:x:0:0:root:/root:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    return buffer.getvalue()
