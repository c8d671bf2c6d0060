from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from moat.proxy.server.confine import readable_paths

TRY = """
import os, resource, sys
from pathlib import Path
from moat.proxy.server.confine import confine, harden, readable_paths, tune_malloc
secret, paths = Path(sys.argv[1]), readable_paths()
harden(); tune_malloc()
confined = confine(paths)
def outcome(action):
    try: action()
    except PermissionError: return "refused"
    return "done"
import ssl, socket, encodings.idna
status = Path("/proc/self/status").read_text()
print(confined, outcome(secret.read_text), outcome(lambda: (secret.parent / "new").write_text("x")),
      resource.getrlimit(resource.RLIMIT_CORE), "NoNewPrivs:\\t1" in status)
fd = os.memfd_create("leaf"); os.write(fd, b"x"); print(Path(f"/proc/self/fd/{fd}").read_bytes())
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE); print(soft == hard)
"""


def test_the_process_keeps_the_system_and_loses_the_users_files(tmp_path: Path) -> None:
    secret = tmp_path / "credential"
    secret.write_text("s3cr3t")

    done = subprocess.run([sys.executable, "-c", TRY, secret], capture_output=True, text=True, check=True, cwd=tmp_path)

    first, second, third = done.stdout.splitlines()
    if first.startswith("False"):
        pytest.skip("this kernel has no Landlock")
    assert first == "True refused refused (0, 0) True"
    assert second == "b'x'"  # leaves' keys are loaded from memory files
    assert third == "True"


def test_neither_the_root_nor_the_working_directory_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    paths = readable_paths()

    assert not {"/", "", str(tmp_path), str(Path.home())} & set(paths)
    assert "/etc" in paths
    assert sys.prefix in paths
