"""Whether this machine can hold sealed runs: each part is asked, and a real run is made in each runtime that is ready.

Each check ends in a sentence for the user; none of them ends the others. The run it makes looks a name up, which its
door answers: nobody outside is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import moat
from moat.api.errors import MoatError
from moat.api.runs import RunSpec
from moat.api.runtimes import Runtime, Sandbox, Stdio
from moat.config.settings import Settings
from moat.daemon.lifecycle import ensure_running
from moat.paths import Home
from moat.plugins.manager import Plugins
from moat.runs.attach import Attachment
from moat.runs.audit_check import check_audit
from moat.runs.checks import Check
from moat.runs.launch import Launch
from moat.runs.machine import check_ca, check_machine
from moat.runs.prepare import prepare
from moat.runs.remains import of_run, remove
from moat.store.keyring import KeyringFailed, SystemKeyring
from moat.trace.store import RunStore

KEYRING_TIMEOUT_S = 5.0  # nobody is to type a password for a check
NOT_FOUND, NO_GETENT = 53, 54
LOOK_UP = (
    f"command -v getent >/dev/null || exit {NO_GETENT}; getent ahostsv4 example.com >/dev/null || exit {NOT_FOUND}"
)
PROBED_ACCOUNT = "doctor"  # never stored: a keyring that works answers that there is nothing


def check_up(home: Home, plugins: Plugins, settings: Settings) -> Iterator[Check]:
    """Yield the checks, quick ones first; the last ones make a run each. Blocking, outside of an event loop."""
    yield from check_machine(home)
    daemon = check_daemon(home)
    yield daemon
    if daemon.state != "failed":
        yield check_ca(home)
    yield check_audit(home)
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
        if readiness.state == "ok" and runtime.sealed and daemon.state != "failed":
            yield from check_door(home, runtime, settings.image)


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
    detail = f"process {health.pid}, version {health.version}, {health.run_count} live runs"
    if health.version != moat.__version__:
        return Check("daemon", "warning", f"{detail}; this command is {moat.__version__}", "run: moat proxy restart")
    return Check("daemon", "ok", detail)


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


def check_door(home: Home, runtime: Runtime, image: str) -> Iterator[Check]:
    """Make a sealed run, whole: registered, door handed over, probed, a name looked up, everything undone."""
    name = f"door in {runtime.name}"
    caveats: list[str] = []

    def note(sandbox: Sandbox) -> None:
        caveats.append(sandbox.caveat)

    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with tempfile.TemporaryDirectory(prefix="moat-doctor-") as folder:
            spec = RunSpec(Path(folder), ("sh", "-c", LOOK_UP), name="doctor", runtime=runtime.name, image=image)
            prepared = prepare(spec, home, [runtime], {})
            launch = Launch(prepared.plan, runtime, prepared.client, home, note)
            outcome = asyncio.run(launch.perform(Attachment(Stdio(nothing, nothing, nothing))))
    except MoatError as failure:
        yield Check(name, "failed", failure.problem, failure.hint)
        return
    finally:
        os.close(nothing)
    if outcome.exit_code not in (0, NOT_FOUND, NO_GETENT):
        yield Check(name, "failed", f"its command ended with {outcome.exit_code}")
    elif any(caveats):
        yield Check(name, "warning", caveats[0])
    else:
        _forget(home, prepared.plan.registration.run_id)
        yield Check(name, "ok", "sealed ✓")
        yield _names_inside(runtime.name, outcome.exit_code)


def _forget(home: Home, run_id: str) -> None:
    """Remove the record of a run of ours that went well: it is no run of the user's, and would be the newest."""
    with contextlib.suppress(MoatError, OSError):
        if (remains := of_run(home, RunStore(home).read(run_id), ())) is not None:
            remove(remains)


def _names_inside(runtime: str, exit_code: int) -> Check:
    name = f"names in {runtime}"
    if exit_code == NOT_FOUND:
        hint = "clients that know the proxy variables work; others will not find their hosts"
        return Check(name, "warning", "the door did not answer a look-up", hint)
    return Check(name, "ok", "not tried: no getent there" if exit_code == NO_GETENT else "the door answers")
