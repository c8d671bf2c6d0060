from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.container import Limits, Mount
from moat.api.errors import RuntimeUnavailable, SandboxFailed
from moat.api.runtimes import DoorTicket, Stdio
from moat.runtimes.bubblewrap import Bubblewrap
from support.living import until
from support.sealed import a_spec, run_sealed, stand_in

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture(params=["outside", "inside"], ids=["gate outside", "gate inside"], autouse=True)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MOAT_BUBBLEWRAP_GATE", request.param)
    return str(request.param)


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    before = set(Path("/proc/self/fd").iterdir())
    yield
    left = {str(path.readlink()) for path in set(Path("/proc/self/fd").iterdir()) - before if path.is_symlink()}
    assert not [name for name in left if "memfd" in name or "doors" in name]


async def test_exit_code_and_streams(tmp_path: Path, workspace: Path) -> None:
    outcome = await run_sealed(
        tmp_path / "home", a_spec(("sh", "-c", "cat; echo no >&2; exit 7"), workspace), stdin=b"hello"
    )

    assert (outcome.code, outcome.out, outcome.err) == (7, b"hello", b"no\n")


async def test_files_of_ours_cover_the_systems_bundle(tmp_path: Path, workspace: Path) -> None:
    home = tmp_path / "home"
    inside = home / "inside" / "run_0123456789ab"
    inside.mkdir(parents=True)
    home.chmod(0o700)
    (inside / "bundle.pem").write_text("OURS")
    targets = ("/etc/ssl/certs/ca-certificates.crt", "/etc/moat/ca-bundle.pem", "/home/moat/.config/x/y")
    mounts = [Mount(inside / "bundle.pem", target, read_only=True) for target in targets]

    outcome = await run_sealed(home, a_spec(("cat", *targets), workspace, mounts=mounts))

    assert (outcome.code, outcome.out, outcome.problem) == (0, b"OURS" * 3, "")


async def test_mount_that_must_not_be_is_refused_before_anything_starts(tmp_path: Path, workspace: Path) -> None:
    outcome = await run_sealed(tmp_path / "home", a_spec(("true",), workspace, mounts=[Mount(tmp_path, "/data")]))

    assert outcome.code is None
    assert "overlap" in outcome.problem


async def test_large_environment_and_arguments_get_through(tmp_path: Path, workspace: Path) -> None:
    env = {f"NAME_{number}": "x" * 1000 for number in range(200)}

    outcome = await run_sealed(tmp_path / "home", a_spec(("sh", "-c", "env | grep -c ^NAME_"), workspace, env=env))

    assert outcome.out == b"200\n"


async def test_nothing_of_the_run_stands_in_the_process_list(tmp_path: Path, workspace: Path) -> None:
    spec = a_spec(("cat", "/proc/1/cmdline"), workspace, env={"TOKEN": "visible-nowhere"})

    outcome = await run_sealed(tmp_path / "home", spec)

    assert b"visible-nowhere" not in outcome.out
    assert str(workspace).encode() not in outcome.out


async def test_created_is_told_a_process_before_the_command_starts(tmp_path: Path, workspace: Path) -> None:
    told: list[int] = []

    async def created(container_id: str) -> None:
        told.append(int(container_id))
        assert _is_there(Path(f"/proc/{container_id}"))
        assert not _is_there(workspace / "started")

    nothing = os.open(os.devnull, os.O_RDWR)
    async with stand_in(tmp_path / "home") as daemon:
        spec = a_spec(("touch", "started"), workspace)
        sandbox = await Bubblewrap().launch(spec, daemon.ticket, Stdio(nothing, nothing, nothing), created)
        assert await sandbox.wait() == 0
        await sandbox.close()
        await sandbox.close()
    os.close(nothing)

    assert _is_there(workspace / "started")
    assert not _is_there(Path(f"/proc/{told[0]}"))


async def test_a_gate_that_is_ahead_opens_the_door_and_starts_the_command_before_launch(
    tmp_path: Path, workspace: Path, place: str
) -> None:
    async def created(container_id: str) -> None:
        raise AssertionError("it was told before")

    nothing, runtime = os.open(os.devnull, os.O_RDWR), Bubblewrap()
    stdio, spec = Stdio(nothing, nothing, nothing), a_spec(("touch", "started"), workspace)
    with runtime.begun():
        assert runtime.is_proved() is (place == "outside")
        if place == "outside":
            async with stand_in(tmp_path / "home") as daemon:
                assert _is_there(Path(f"/proc/{runtime.expect(daemon.ticket)}"))
                runtime.provide(spec, daemon.ticket, stdio)
                await until(lambda: _is_there(workspace / "started"))
                sandbox = await runtime.launch(spec, daemon.ticket, stdio, created)
                assert await sandbox.wait() == 0
                await sandbox.close()
    os.close(nothing)


async def test_a_mount_that_must_not_be_is_refused_by_a_gate_that_is_ahead(
    tmp_path: Path, workspace: Path, place: str
) -> None:
    runtime, spec = Bubblewrap(), a_spec(("true",), workspace, mounts=[Mount(tmp_path, "/data")])
    with runtime.begun():
        if place == "outside":
            assert runtime.is_proved()
            async with stand_in(tmp_path / "home") as daemon:
                with pytest.raises(SandboxFailed, match="overlap"):
                    runtime.provide(spec, daemon.ticket, Stdio(0, 1, 2))


def test_nothing_is_proved_or_expected_before_it_has_begun(place: str) -> None:
    runtime = Bubblewrap()

    assert not runtime.is_proved()
    assert runtime.expect(DoorTicket("run_0123456789ab", Path("/nowhere"), "nonce")) == ""


async def test_machine_without_bubblewrap_is_told(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with stand_in(tmp_path / "home") as daemon:
        with pytest.raises(RuntimeUnavailable, match="bubblewrap is not installed"):
            await Bubblewrap().launch(a_spec(("true",), workspace), daemon.ticket, Stdio(0, 1, 2), _nothing)


async def _nothing(container_id: str) -> None:
    del container_id


def _is_there(path: Path) -> bool:
    return path.exists()


async def test_ulimits_hold_inside_and_other_limits_are_not_promised(tmp_path: Path, workspace: Path) -> None:
    limits = Limits(ulimits={"nofile": (64, 128), "core": (0, 0)})
    spec = replace(a_spec(("sh", "-c", "ulimit -n; ulimit -Hn; ulimit -Hc; ulimit -n 129"), workspace), limits=limits)

    outcome = await run_sealed(tmp_path / "home", spec)

    assert outcome.out.split() == [b"64", b"128", b"0"]
    assert outcome.code != 0
    assert await Bubblewrap().unenforced(limits) == ()
    assert await Bubblewrap().unenforced(Limits(memory_bytes=1 << 30, cpus=1, pids=9)) == ("memory", "cpus", "pids")
