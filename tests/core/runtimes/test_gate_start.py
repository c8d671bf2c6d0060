"""The gate's first moments in a container, in a process of its own: whom it becomes, and that no capability is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from moat.runtimes import gate_start

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
import gate_start
gate_start.give_up_privileges(int(sys.argv[2]), int(sys.argv[3]))
print(*os.getresuid(), *os.getresgid(), gate_start.capabilities())
"""


def give_up(folder: Path, uid: int, gid: int) -> str:
    (folder / "gate_start.py").write_text(Path(gate_start.__file__).read_text())
    folder.chmod(0o755)
    # Debian's: this one may lie in a home that only its owner can enter, and modules are loaded after that.
    argv = ["/usr/bin/python3", "-I", "-S", "-c", PROGRAM, str(folder), str(uid), str(gid)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@needs_root
def test_it_becomes_the_invoker_for_good(tmp_path: Path) -> None:
    assert give_up(tmp_path, 1234, 5678) == "1234 1234 1234 5678 5678 5678 []"


@needs_root
def test_root_keeps_its_name_and_no_capability(tmp_path: Path) -> None:
    assert give_up(tmp_path, 0, 0) == "0 0 0 0 0 0 []"


@needs_root
def test_capabilities_are_seen_where_there_are_some() -> None:
    assert any(line.startswith("CapEff:") for line in gate_start.capabilities())


def test_it_uses_the_standard_library_and_the_gate_only() -> None:
    imported = [line.split()[1] for line in Path(gate_start.__file__).read_text().splitlines() if "import " in line]

    assert not any(name.startswith("moat") for name in imported)


def test_the_gate_is_what_it_becomes(tmp_path: Path) -> None:
    (tmp_path / "gate_start.py").write_text(Path(gate_start.__file__).read_text())
    (tmp_path / "gate.py").write_text(
        "def add_second_address():\n    print('address', flush=True)\n\ndef main():\n    print('gate')\n    return 7\n"
    )
    own = [str(os.geteuid()), str(os.getegid())]

    done = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / "gate_start.py"), *own], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.returncode) == ("address\ngate\n", 7), done.stderr
