from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.errors import PlanConflict
from moat.runs.begin import BEGIN, begin, begin_script, begun

from core.runs.plans import a_spec

ODD = 'it\'s "odd" $HOME `id` \\n %s\n\nEOF\n'


def test_the_files_are_there_when_the_command_begins_and_are_its_own(tmp_path: Path) -> None:
    home = str(tmp_path / "a home")
    script = begin_script({f"{home}/.x/y z": ODD, f"{home}/plain": "no newline"}, home)
    (tmp_path / "begin").write_text(script)

    shown = f"cat '{home}/.x/y z'; stat -c %a '{home}/plain'; umask; echo more >> '{home}/plain'; echo \"$@\""
    done = subprocess.run(["/bin/sh", tmp_path / "begin", "sh", "-c", shown, "0", "a b", "c"], capture_output=True,
                          text=True, check=True)  # fmt: skip

    assert done.stdout == f"{ODD}600\n0022\na b c\n"
    assert Path(home, "plain").read_text() == "no newlinemore\n"


def test_the_command_follows_the_script() -> None:
    spec = replace(a_spec("cmd"), files={"/home/moat/x": "y"}, agent="pal")

    assert begun(spec, ("cmd", "--flag")) == ("/bin/sh", BEGIN, "cmd", "--flag")
    assert [owner for owner, _ in begin(spec, "/home/moat")] == ["agent pal"]


def test_a_run_without_files_begins_as_it_is() -> None:
    assert begun(a_spec("cmd"), ("cmd", "--flag")) == ("cmd", "--flag")
    assert list(begin(a_spec("cmd"), "/home/moat")) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "/home/moat/../x", "/home/moat//x", "relative", "/home/moats/x"])
def test_a_file_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(PlanConflict, match="an agent can have a file in /home/moat"):
        begin_script({path: "x"}, "/home/moat")
