"""How a run is carried out, by what its caller's descriptors are: see also tests/integration/test_attached.py."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api.runs import RunInfo
from moat.api.runtimes import Stdio
from moat.cli.perform import own_shape, said_after
from moat.paths import Home, private_folder
from moat.trace.store import RunStore
from support.installation import Installation, installation

INFO = RunInfo(
    "run_0123456789ab", "calm-otter", "fake", "permissive", (), "/srv/work", ("true",), "2026-01-01T00:00:00Z",
    "running", requests=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        yield made


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(private_folder(tmp_path / "moat"))
    RunStore(made).write(INFO)
    return made


def test_without_a_terminal_the_command_has_the_callers_own_descriptors(moat: Installation) -> None:
    done = moat.run("run", "work", "--runtime", "process", "--", "sh", "-c", "cat; echo err >&2", input=b"in")

    assert done.stdout == b"in"
    assert b"err\n" in done.stderr


def test_detached_prints_the_name_alone_for_scripts(moat: Installation) -> None:
    done = moat.run("run", "-d", "work", "--runtime", "process", "--name", "alone", "--", "true")

    assert (done.returncode, done.stdout) == (0, b"alone\n")
    assert b"moat logs -f alone" in done.stderr
    assert moat.run("wait", "alone").returncode == 0


def test_tty_with_detach_gives_a_terminal_to_attach_to(moat: Installation) -> None:
    moat.ok(
        "run",
        "-dt",
        "work",
        "--runtime",
        "process",
        "--name",
        "with-tty",
        "--",
        "sh",
        "-c",
        "test -t 0; echo $?; stty size",
    )
    assert moat.run("wait", "with-tty").returncode == 0

    assert moat.run("logs", "with-tty").stdout == b"0\r\n24 80\r\n"


def test_leaving_says_how_to_come_back_and_the_end_what_happened(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert said_after(home, INFO.run_id, True, 5) == 0
    assert "moat attach calm-otter" in capfd.readouterr().err
    assert said_after(home, INFO.run_id, False, 5) == 5
    assert "2 requests" in capfd.readouterr().err
    assert said_after(home, "run_ba9876543210", False, 5) == 5  # its record is gone: nothing to say


def test_what_is_no_terminal_is_given_as_it_is() -> None:
    master, slave = pty.openpty()
    read, write = os.pipe()

    shape = own_shape(Stdio(slave, write, slave), (24, 80))

    assert list(shape.given) == [1]
    assert os.path.sameopenfile(shape.given[1], write)
    assert shape.settings is not None
    for descriptor in (master, slave, read, write, shape.given[1]):
        os.close(descriptor)


def test_the_list_tells_json_of_a_detached_run(moat: Installation) -> None:
    moat.ok("run", "-d", "work", "--runtime", "process", "--name", "listed", "--", "true")
    moat.run("wait", "listed")

    assert "listed" in [each["name"] for each in json.loads(moat.ok("list", "--json"))]
