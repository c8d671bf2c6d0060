from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from support.installation import Installation, installation


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        yield made


def test_bash_itself_takes_the_script_and_completes_commands_and_runs(moat: Installation) -> None:
    (moat.home / "work").mkdir()
    moat.ok("run", "-d", "work", "--runtime", "process", "--name", "calm-otter", "--", "true")
    moat.run("wait", "calm-otter")
    asks = 'COMP_WORDS=(moat "$@"); COMP_CWORD=$#; COMPREPLY=(); _moat_completion moat; echo "${COMPREPLY[@]}"'
    script = f'eval "$(moat completion bash)"; ask() {{ {asks}; }}; ask unin; ask logs ca; ask run --allow-h'

    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=moat.environment(), check=True, capture_output=True, text=True
    )

    assert done.stdout.splitlines() == ["uninstall", "calm-otter", "--allow-host"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_theirs(moat: Installation, shell: str) -> None:
    assert f"_MOAT_COMPLETE={shell}_complete" in moat.ok("completion", shell)


def test_a_shell_that_is_not_known_is_refused(moat: Installation) -> None:
    assert moat.run("completion", "tcsh").returncode == 2
