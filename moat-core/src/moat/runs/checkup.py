"""Whether this machine can hold sealed runs: each part is asked, and a real run is made in each runtime that is ready.

Each check ends in a sentence for the user; none of them ends the others. The run it makes does nothing (`true`).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moat.api.errors import MoatError
from moat.api.runs import RunSpec
from moat.api.runtimes import Runtime, Sandbox, Stdio
from moat.config.settings import Settings
from moat.daemon.lifecycle import ensure_running
from moat.paths import Home
from moat.plugins.manager import Plugins
from moat.runs.attach import Attachment
from moat.runs.launch import Launch
from moat.runs.prepare import prepare
from moat.store.keyring import KeyringFailed, SystemKeyring

State = Literal["ok", "warning", "failed"]
KEYRING_TIMEOUT_S = 5.0  # nobody is to type a password for a check
PROBED_ACCOUNT = "doctor"  # never stored: a keyring that works answers that there is nothing


@dataclass(frozen=True, slots=True)
class Check:
    """One part's state. name: what was looked at. hint: what to type, "" where there is nothing to do."""

    name: str
    state: State
    detail: str
    hint: str = ""


def check_up(home: Home, plugins: Plugins, settings: Settings) -> Iterator[Check]:
    """Yield the checks, quick ones first; the last ones make a run each. Blocking, outside of an event loop."""
    daemon = check_daemon(home)
    yield daemon
    yield check_keyring(SystemKeyring(KEYRING_TIMEOUT_S), os.environ.get("MOAT_KEYRING_BACKEND", ""))
    try:
        runtimes: Sequence[Runtime] = plugins.runtimes()
    except MoatError as failure:
        yield Check("runtimes", "failed", failure.problem, failure.hint)
        runtimes = ()
    yield from check_plugins(plugins)
    for runtime in runtimes:
        readiness = check_runtime(runtime, settings.image)
        yield readiness
        if readiness.state == "ok" and runtime.sealed and daemon.state == "ok":
            yield check_door(home, runtime, settings.image)


def can_run(checks: Sequence[Check]) -> bool:
    """Whether at least one sealed run was opened."""
    return any(check.name.startswith("door") and check.state == "ok" for check in checks)


def check_daemon(home: Home) -> Check:
    """Start the daemon if need be and ask how it is."""
    try:
        health = ensure_running(home).health()
    except MoatError as failure:
        return Check("daemon", "failed", failure.problem, failure.hint)
    if not health.worker_pid:
        return Check("daemon", "failed", "it has no proxy worker", "run: moat proxy stop")
    return Check("daemon", "ok", f"process {health.pid}, version {health.version}, {health.run_count} live runs")


def check_keyring(keyring: SystemKeyring, backend: str) -> Check:
    """Ask the keyring for something that is not there; without a keyring the store's key is a file."""
    if backend == "file":
        return Check("keyring", "ok", "not used: MOAT_KEYRING_BACKEND=file")
    try:
        keyring.get(PROBED_ACCOUNT)
    except KeyringFailed as failure:
        detail = f"{failure}; the store's key is kept in a file that only you can read"
        return Check("keyring", "warning", detail)
    return Check("keyring", "ok", "it answers")


def check_plugins(plugins: Plugins) -> Iterator[Check]:
    """Yield the plugins' state, and each broken one."""
    try:
        names = [provider.name for provider in plugins.credential_providers()]
    except MoatError as failure:
        yield Check("plugins", "failed", failure.problem, failure.hint)
        return
    yield Check("plugins", "ok", f"providers: {', '.join(names) or 'none'}")
    for problem in plugins.problems:
        yield Check("plugins", "warning", str(problem), f"run: pip uninstall {problem.plugin.distribution}")


def check_runtime(runtime: Runtime, image: str) -> Check:
    """Ask a runtime whether it could launch. One that is not there is no failure: another may be."""
    try:
        readiness = asyncio.run(runtime.readiness(image))
    except MoatError as failure:
        return Check(runtime.name, "failed", failure.problem, failure.hint)
    if not readiness.is_ready:
        return Check(runtime.name, "warning", readiness.detail, readiness.hint)
    note = "" if runtime.sealed else " (not sealed: only when asked for by name)"
    return Check(runtime.name, "ok", readiness.detail + note)


def check_door(home: Home, runtime: Runtime, image: str) -> Check:
    """Make a sealed run, whole: registered, door handed over, probed, command run, everything undone."""
    name = f"door in {runtime.name}"
    caveats: list[str] = []

    def note(sandbox: Sandbox) -> None:
        caveats.append(sandbox.caveat)

    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with tempfile.TemporaryDirectory(prefix="moat-doctor-") as folder:
            spec = RunSpec(Path(folder), ("true",), name="doctor", runtime=runtime.name, image=image)
            prepared = prepare(spec, home, [runtime], {})
            launch = Launch(prepared.plan, runtime, prepared.client, home, note)
            outcome = asyncio.run(launch.perform(Attachment(Stdio(nothing, nothing, nothing))))
    except MoatError as failure:
        return Check(name, "failed", failure.problem, failure.hint)
    finally:
        os.close(nothing)
    if outcome.exit_code != 0:
        return Check(name, "failed", f"`true` ended with {outcome.exit_code}")
    return Check(name, "warning", caveats[0]) if any(caveats) else Check(name, "ok", "sealed ✓")
