"""The daemon's composition root: makes every part, hands them to each other, and ends them in order. Decides nothing.

start   sweep ─▶ worker in force ─▶ socket served
group   worker.serve · records.flush_forever · one watch a run
stop    runs lost ─▶ requests drained ─▶ worker ended ─▶ everything flushed
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import moat
from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.config.settings import load_settings
from moat.daemon.environment import reduced
from moat.daemon.grants import Grants
from moat.daemon.listening import listening
from moat.daemon.parts import Parts
from moat.daemon.process import Card, read_card, start_time, write_card
from moat.daemon.protocol import Health
from moat.daemon.reaper import RuntimeReaper
from moat.daemon.records import Records
from moat.daemon.registry import Registry
from moat.daemon.runs import Runs
from moat.daemon.server import Server, bind, serve
from moat.daemon.sweep import sweep
from moat.daemon.upstream import Installation
from moat.daemon.watch import REAP_TIMEOUT_S
from moat.daemon.worker import COMMAND, Worker
from moat.log import Redactor
from moat.paths import Home
from moat.plugins.manager import Plugins
from moat.proxy.ca import load_or_make
from moat.proxy.messages import Configure
from moat.store.credentials import CredentialStore
from moat.trace.network import NetworkLog
from moat.trace.store import RunStore

PREFERRED_PORT = 19080

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this daemon is: what health answers whatever happens."""

    proxy_port: int
    born: datetime


async def run_daemon(home: Home, redactor: Redactor) -> None:
    """Serve until SIGTERM, SIGINT or a shutdown request, then end in order. The caller holds the daemon's lock."""
    leave = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leave.set)
    listener = listening((_last_port(home), PREFERRED_PORT, 0))
    identity = Identity(listener.getsockname()[1], datetime.now(UTC))
    parts = await asyncio.to_thread(make_parts, home, redactor, identity.proxy_port)
    lost = sweep(home, parts.store)
    async with asyncio.TaskGroup() as group:
        group.create_task(parts.worker.serve(), name="worker")
        flushing = group.create_task(parts.records.flush_forever(), name="flush")
        runs = Runs(parts, group)
        parts.worker.configure(_first_configuration(parts.installation))
        parts.worker.listen("", "token", listener)
        await parts.worker.barrier()
        reaping = [group.create_task(_reap(parts, info), name=f"reap {info.run_id}") for info in lost]
        server = Server(runs, partial(_health, identity, parts), leave.set)
        runner = await serve(server.application(), bind(home.daemon / "daemon.sock"))
        _write_card(home, identity)
        log.info("daemon ready", extra={"proxy_port": identity.proxy_port})

        await leave.wait()
        server.is_leaving = True
        await runner.cleanup()  # first: a registration that is under way still makes a run
        await runs.lose_all()
        await parts.worker.stop()
        for task in (flushing, *reaping):
            task.cancel()
    parts.records.flush()
    (home.daemon / "daemon.sock").unlink(missing_ok=True)
    log.info("daemon ended")


def make_parts(home: Home, redactor: Redactor, proxy_port: int) -> Parts:
    """Return the parts of a daemon. Blocking: reads files, loads plugins, makes the CA if there is none."""
    plugins = Plugins.load()
    authority = load_or_make(home.ca)
    registry, store = Registry(), RunStore(home)
    records = Records(registry, store, NetworkLog(), plugins)
    return Parts(
        home=home,
        installation=Installation(authority.certificate_pem, authority.key_pem, partial(load_settings, home)),
        registry=registry,
        grants=Grants(CredentialStore(home), plugins, redactor),
        worker=Worker(records, home.daemon / "daemon.log", reduced(os.environ), COMMAND),
        records=records,
        store=store,
        observers=plugins,
        reaper=RuntimeReaper(plugins),
        proxy_port=proxy_port,
    )


def _first_configuration(installation: Installation) -> Configure:
    try:
        return installation.configuration()
    except UsageError as mistake:  # told to whoever registers a run; the daemon itself can be asked and stopped
        log.warning("the settings are not used", extra={"problem": mistake.problem})
        return installation.bare()


async def _reap(parts: Parts, info: RunInfo) -> None:
    """Remove what a run of the daemon before this one left."""
    try:
        async with asyncio.timeout(REAP_TIMEOUT_S):
            await parts.reaper.reap(info.runtime, info.run_id)
        await asyncio.to_thread(shutil.rmtree, parts.home.inside(info.run_id), ignore_errors=True)
    except Exception:  # the top of a task: what cannot be removed now must not end the daemon
        log.exception("a lost run could not be reaped", extra={"run_id": info.run_id})


def _health(identity: Identity, parts: Parts) -> Health:
    return Health(
        pid=os.getpid(),
        version=moat.__version__,
        proxy_port=identity.proxy_port,
        run_count=len(parts.registry),
        started_at=identity.born.isoformat(timespec="seconds"),
        uptime_s=(datetime.now(UTC) - identity.born).total_seconds(),
        worker_pid=parts.worker.pid,
    )


def _last_port(home: Home) -> int:
    card = read_card(home)
    return card.proxy_port if card is not None else PREFERRED_PORT


def _write_card(home: Home, identity: Identity) -> None:
    pid = os.getpid()
    started_at = identity.born.isoformat(timespec="seconds")
    write_card(home, Card(pid, start_time(pid) or 0, moat.__version__, identity.proxy_port, started_at))
