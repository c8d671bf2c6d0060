"""The gate's image, its program, and its lines."""

from __future__ import annotations

import io
import os
import py_compile
import sys
import tarfile
from pathlib import Path
from typing import cast

import pytest
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket
from moat.runtimes import docker_gate
from moat.runtimes.docker_engine import STDERR, STDOUT, Attachment, session
from moat.runtimes.docker_gate import (
    ContainerWire,
    Gate,
    create_gate,
    elsewhere_is_unreached,
    empty_image,
    ensure_image,
    host_program,
)
from moat.runtimes.engine import Engine
from moat.runtimes.gatelink import DoorUnreached
from support.fake_engine import VERSION, fake_engine

IMAGE, _ = empty_image()


class Speaking:
    """Stands in for an attachment that says these pieces."""

    def __init__(self, *pieces: tuple[int, bytes]) -> None:
        self._pieces = list(pieces)

    async def read(self) -> tuple[int, bytes] | None:
        return self._pieces.pop(0) if self._pieces else None


def a_wire(*pieces: tuple[int, bytes]) -> ContainerWire:
    return ContainerWire(cast("Attachment", Speaking(*pieces)))


def a_ticket(folder: Path) -> DoorTicket:
    return DoorTicket("run_0123456789ab", folder, "n0nce")


def test_the_image_holds_no_file_at_all() -> None:
    name, data = empty_image()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entries = tar.getmembers()

    assert all(entry.isdir() or entry.issym() for entry in entries)
    assert {"usr", "door", "proc"} <= {entry.name for entry in entries}
    assert name.startswith("moat-gate:")


def test_the_image_is_the_same_every_time() -> None:
    assert empty_image() == empty_image()


async def test_an_image_that_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {f"GET images/{IMAGE}/json": (200, {"Id": "sha256:0"})}
    async with fake_engine(tmp_path, monkeypatch, answers) as engine, session() as docker:
        assert await ensure_image(docker) == IMAGE

    assert "POST images/create" not in engine.calls


async def test_a_missing_image_is_imported_not_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        fake_engine(tmp_path, monkeypatch, {"POST images/create": (200, {"status": "done"})}) as engine,
        session() as docker,
    ):
        await ensure_image(docker)

    query = engine.queries["POST images/create"]
    assert (query["fromSrc"], query["repo"]) == ("-", IMAGE)
    assert "fromImage" not in query
    assert engine.bodies["POST images/create"] == empty_image()[1]


def test_the_gate_runs_with_the_python_that_runs_moat() -> None:
    program = host_program()

    python = Path(program.python[0])
    assert python.is_file()
    assert any(python.is_relative_to(folder) for folder in program.read_only)
    assert program.python[1:] == ("-I", "-S")
    assert all(source.is_file() for source in program.files)


def test_the_gate_is_not_compiled_again_where_it_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "gate.py"
    monkeypatch.setattr(docker_gate, "GATE_SOURCE", source)
    source.write_text("")
    before = host_program().files

    compiled = Path(py_compile.compile(str(source)) or "")

    assert [*before.values()] == ["/gate.py", "/gate_start.py"]
    assert host_program().files == {**before, compiled: f"/__pycache__/{compiled.name}"}


def test_a_python_outside_usr_is_shown_in_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/home/u/.pyenv/versions/3.11.7")

    assert Path("/home/u/.pyenv/versions/3.11.7") in host_program().read_only


def test_a_python_in_usr_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")

    assert host_program().read_only[0] == Path("/usr")
    assert Path("/usr/local") not in host_program().read_only


async def test_lines_are_put_together_from_pieces_and_complaints_kept_apart() -> None:
    wire = a_wire((STDOUT, b'{"event":'), (STDERR, b"warning\n"), (STDOUT, b'"open"}\n{"event":"lost"}\n'))

    assert [await wire.readline(), await wire.readline(), await wire.readline()] == [
        b'{"event":"open"}\n',
        b'{"event":"lost"}\n',
        b"",
    ]


async def test_a_gates_complaint_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    await a_wire((STDERR, b"Traceback: no memory\n")).readline()

    assert [vars(record)["complaint"] for record in caplog.records] == ["Traceback: no memory\n"]


async def test_an_endless_line_is_not_collected_for_ever() -> None:
    wire = a_wire(*[(STDOUT, b"x" * 60_000)] * 3)

    assert await wire.readline() != b"\n"


async def test_a_gate_that_an_engine_elsewhere_cannot_run_is_unreached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        f"GET images/{IMAGE}/json": (200, {"Id": "sha256:0"}),
        "POST containers/create": (400, {"message": "bind source path does not exist"}),
        "GET version": (200, {**VERSION, "KernelVersion": "5.0-of-another-machine"}),
    }
    async with fake_engine(tmp_path, monkeypatch, answers), session() as docker:
        with pytest.raises(DoorUnreached, match="bind source path"):
            async with elsewhere_is_unreached(docker):
                await create_gate(docker, a_ticket(tmp_path), "0:0", {})


async def test_a_gate_that_this_machines_engine_cannot_run_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        f"GET images/{IMAGE}/json": (200, {"Id": "sha256:0"}),
        "POST containers/create": (500, {"message": "no space left"}),
        "GET version": (200, {**VERSION, "KernelVersion": os.uname().release}),
    }
    async with fake_engine(tmp_path, monkeypatch, answers), session() as docker:
        with pytest.raises(SandboxFailed, match="no space left") as caught:
            async with elsewhere_is_unreached(docker):
                await create_gate(docker, a_ticket(tmp_path), "0:0", {})

    assert not isinstance(caught.value, DoorUnreached)


@pytest.mark.parametrize(
    "answer", [(404, {"message": "gone"}), (200, {"State": {"Running": False}})], ids=["gone", "ended"]
)
async def test_a_gate_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, object]
) -> None:
    async with fake_engine(tmp_path, monkeypatch, {"GET containers/g/json": answer}), session() as docker:
        with pytest.raises(SandboxFailed, match="the gate ended unexpectedly"):
            await Gate(docker, "g").check()


async def test_a_gate_that_runs_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"GET containers/g/json": (200, {"State": {"Running": True}})}
    async with fake_engine(tmp_path, monkeypatch, answers), session() as docker:
        await Gate(docker, "g").check()


def test_the_command_joins_the_gate_by_id() -> None:
    assert Gate(cast("Engine", _NoEngine()), "abc").network == "container:abc"


class _NoEngine:
    @property
    def containers(self) -> _NoEngine:
        return self

    def container(self, container_id: str) -> str:
        return container_id
