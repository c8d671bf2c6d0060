from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.runs.host_program import HostProgram, find_program


@pytest.fixture
def search(tmp_path: Path) -> str:
    (tmp_path / "bin").mkdir()
    return f"{tmp_path}/bin:/usr/bin:/bin"


def a_program(path: Path, text: str = "\x7fELF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def shown(*paths: Path) -> tuple[Mount, ...]:
    return tuple(Mount(path, str(path), read_only=True) for path in paths)


def test_what_is_not_there_is_none(search: str) -> None:
    assert find_program("moat-no-such-agent", search) is None


def test_a_program_of_the_system_needs_nothing_shown(search: str) -> None:
    found = find_program("env", search)

    assert found == HostProgram((str(Path("/usr/bin/env").resolve()),), ())


def test_a_program_of_the_users_own_is_shown_alone(tmp_path: Path, search: str) -> None:
    program = a_program(tmp_path / "share" / "versions" / "1.2")
    (tmp_path / "bin" / "agent").symlink_to("../share/versions/1.2")

    assert find_program("agent", search) == HostProgram((str(program),), shown(program))


def test_a_program_of_npm_is_shown_with_its_packages_and_its_interpreter(tmp_path: Path, search: str) -> None:
    outer = tmp_path / "lib" / "node_modules"
    script = a_program(outer / "@a" / "b" / "node_modules" / "c" / "cli.js", "#!/usr/bin/env -S agent-node\nx\n")
    (tmp_path / "bin" / "agent").symlink_to(script)
    node = a_program(tmp_path / "bin" / "agent-node")

    assert find_program("agent", search) == HostProgram((str(node), str(script)), shown(outer, node))


def test_a_script_whose_interpreter_is_not_here_is_started_as_it_is(tmp_path: Path, search: str) -> None:
    script = a_program(tmp_path / "bin" / "agent", "#!/nowhere/to/be/found\n")

    assert find_program("agent", search) == HostProgram((str(script),), shown(script))
