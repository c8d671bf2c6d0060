from __future__ import annotations

import inspect
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from moat.api.errors import UsageError
from moat.runtimes import bubblewrap_trial, gate, gatelink
from moat.runtimes.bubblewrap_trial import find_place, install_hint

TRUE, FALSE = "exit 0", "echo bwrap: no; exit 1"


def a_bwrap(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, version: str = "0.8.0", plain: str = TRUE, net: str = TRUE
) -> None:
    """Put a bwrap on the PATH that ends as told, with and without --unshare-net; no kernel needed."""
    script = f"""#!/bin/sh
case "$1" in
--version) echo "bubblewrap {version}" ;;
--unshare-net) {{ {net}; }} >&2 ;;
*) {{ {plain}; }} >&2 ;;
esac
"""
    path = folder / "bwrap"
    path.write_text(script)
    path.chmod(0o755)
    monkeypatch.setattr(gate, "enter_namespace", lambda: None)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def no_namespace() -> None:
    raise OSError(1, "no new network namespace can be made")


def switches(folder: Path, **values: str) -> Path:
    for name, value in values.items():
        path = folder.joinpath("sys", *name.split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    return folder / "sys"


async def test_missing_bubblewrap_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    found = await find_place({})

    assert found.place is None
    assert found.readiness.detail == "bubblewrap is not installed"
    assert "bubblewrap" in found.readiness.hint


@pytest.mark.parametrize(
    ("uid", "hint"), [(0, "run: apt-get install bubblewrap"), (1000, "run: sudo apt-get install bubblewrap")]
)
def test_hint_is_the_line_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, hint: str) -> None:
    (tmp_path / "apt-get").write_text("#!/bin/sh\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert install_hint() == hint


async def test_old_bubblewrap_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_bwrap(tmp_path, monkeypatch, version="0.6.1", plain=FALSE, net=FALSE)  # it does not know --disable-userns

    found = await find_place({})

    assert found.place is None
    assert found.readiness.detail == "bubblewrap 0.6 is too old: 0.8 or newer is needed"


async def test_gate_stands_outside_where_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_bwrap(tmp_path, monkeypatch)

    found = await find_place({})

    assert found.place == "outside"
    assert found.readiness.is_ready


async def test_gate_stands_inside_where_outside_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_bwrap(tmp_path, monkeypatch, plain=FALSE)

    found = await find_place({}, switches(tmp_path, kernel__apparmor_restrict_unprivileged_userns="1"))

    assert found.place == "inside"
    assert found.readiness.is_ready
    assert "kernel.apparmor_restrict_unprivileged_userns=1" in found.readiness.detail
    assert "only the proxy port" in found.readiness.detail


@pytest.mark.parametrize("wanted", ["outside", "inside"])
async def test_variable_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    a_bwrap(tmp_path, monkeypatch)

    assert (await find_place({"MOAT_BUBBLEWRAP_GATE": wanted})).place == wanted


async def test_variable_is_not_overruled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_bwrap(tmp_path, monkeypatch, plain=FALSE)

    assert (await find_place({"MOAT_BUBBLEWRAP_GATE": "outside"}, tmp_path)).place is None


async def test_nonsense_in_the_variable_is_an_error() -> None:
    with pytest.raises(UsageError, match="sideways"):
        await find_place({"MOAT_BUBBLEWRAP_GATE": "sideways"})


@pytest.mark.parametrize(
    ("switch", "value", "detail", "hint"),
    [
        (
            "kernel__apparmor_restrict_unprivileged_userns",
            "1",
            "AppArmor",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user__max_user_namespaces", "0", "forbids user namespaces", "sysctl user.max_user_namespaces=15000"),
        (
            "kernel__unprivileged_userns_clone",
            "0",
            "forbids user namespaces",
            "sysctl kernel.unprivileged_userns_clone=1",
        ),
        ("kernel__other", "0", "bwrap: no", "--runtime docker"),
    ],
)
async def test_nowhere_is_told_with_the_switch_that_is_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str, value: str, detail: str, hint: str
) -> None:
    a_bwrap(tmp_path, monkeypatch, plain=FALSE, net=FALSE)

    found = await find_place({}, switches(tmp_path, **{switch: value}))

    assert found.place is None
    assert detail in found.readiness.detail
    assert hint in found.readiness.hint


async def test_machine_without_a_filter_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_bwrap(tmp_path, monkeypatch)
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine="riscv64"))

    assert "riscv64" in (await find_place({})).readiness.detail


@pytest.mark.bubblewrap
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.parametrize("wanted", ["outside", "inside"])
async def test_real_bubblewrap_can_do_both(wanted: str) -> None:
    assert (await find_place({"MOAT_BUBBLEWRAP_GATE": wanted})).place == wanted


@pytest.mark.bubblewrap
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
async def test_real_bubblewrap_is_tried_by_a_process_of_its_own_beside_threads() -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(stop.wait)
        try:
            found = await find_place({"MOAT_BUBBLEWRAP_GATE": "outside"})
        finally:
            stop.set()

    assert found.place == "outside"


@pytest.mark.parametrize("is_alone", [True, False])
async def test_a_namespace_that_cannot_be_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_alone: bool
) -> None:
    a_bwrap(tmp_path, monkeypatch, net=FALSE)
    monkeypatch.setattr(gate, "enter_namespace", no_namespace)
    (tmp_path / "gate.py").write_text(inspect.getsource(no_namespace).replace("no_namespace", "enter_namespace"))
    monkeypatch.setattr(gatelink, "GATE_SOURCE", tmp_path / "gate.py")
    monkeypatch.setattr(threading, "active_count", lambda: 1 if is_alone else 2)

    found = await find_place({}, tmp_path)

    assert found.place is None
    assert "no new network namespace can be made" in found.readiness.detail


def test_the_gate_asks_for_the_same() -> None:
    assert bubblewrap_trial.SO_NETNS_COOKIE == gate.SO_NETNS_COOKIE
