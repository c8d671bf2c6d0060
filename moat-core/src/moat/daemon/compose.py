"""The daemon's composition root: makes every part, hands them to each other, and ends them in order. Decides nothing.

start   runs.json read ─▶ sweep ─▶ worker in force ─▶ runs back ─▶ socket served
group   worker.serve · records.flush_forever · ledger.keep · restore, rounds, idle · one watch a run
stop    renewals stored ─▶ requests answered ─▶ exchanges drained ─▶ runs ended ─▶ all flushed
        for another daemon: … ─▶ runs let go, and then exchanges drained ─▶ all flushed
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from aiohttp.web import AppRunner

import moat
from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.audit.chain import INSTALLATION
from moat.config.settings import DaemonSettings, load_settings
from moat.daemon import answers, audit_facts, metrics
from moat.daemon.answers import Answers
from moat.daemon.audience import Audience
from moat.daemon.audit_api import AuditHandlers
from moat.daemon.audit_key import AuditKeys
from moat.daemon.audit_notes import left
from moat.daemon.audit_seal import Signing
from moat.daemon.auditor import Auditor
from moat.daemon.build import commit
from moat.daemon.captures import Captures, Means
from moat.daemon.environment import reduced
from moat.daemon.front import Front
from moat.daemon.grants import Grants
from moat.daemon.guesses import KIND, GuessLog
from moat.daemon.handlers import Handlers
from moat.daemon.idle import Idle
from moat.daemon.ledger import Ledger
from moat.daemon.listening import listening_again
from moat.daemon.metrics_port import serve_metrics
from moat.daemon.otel import telemetry
from moat.daemon.parts import Parts
from moat.daemon.presence import Presence
from moat.daemon.process import Card, boot_id, is_kept, read_card, remove_lock, start_time, write_card
from moat.daemon.protocol import Health
from moat.daemon.reaper import RuntimeReaper, remove_files
from moat.daemon.records import Records
from moat.daemon.registry import Entry, Registry
from moat.daemon.runs import Runs
from moat.daemon.server import Server, bind, close, serve
from moat.daemon.services import Services
from moat.daemon.state import load, render, state_file
from moat.daemon.suites import preferring
from moat.daemon.sweep import still_live, sweep
from moat.daemon.upstream import Installation
from moat.daemon.watch import REAP_TIMEOUT_S
from moat.daemon.worker import COMMAND, Worker
from moat.log import Redactor
from moat.paths import UNWRITABLE, Home, write_private
from moat.plugins.manager import Plugins
from moat.proxy.ca import load_or_make
from moat.proxy.messages import Configure
from moat.store.credentials import CredentialStore
from moat.trace.network import NetworkLog
from moat.trace.store import RunStore

PREFERRED_PORT = 19080
PORT_PATIENCE_S = 3.0  # for the worker of a killed daemon to let go of the port

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this daemon is: what health answers whatever happens. began: by the monotonic clock, which nobody sets."""

    proxy_port: int
    born: datetime
    began: float


class Leaving:
    """How the daemon is asked to end, and whether its runs go on: after a signal, and when it is idle, they do."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.keeps_runs = True
        self.first: list[Callable[[], object]] = []  # called at once, before anything is taken down

    def keep(self) -> None:
        """End, and leave the runs to the next daemon."""
        for function in self.first:
            function()
        self.asked.set()

    def end_runs(self) -> None:
        """End, and the runs with it."""
        self.keeps_runs = False
        self.keep()


async def run_daemon(home: Home, redactor: Redactor, lock: int) -> None:
    """Serve until a signal, a shutdown request or long idleness, then end in order. lock: descriptor of its lock."""
    leaving = Leaving()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leaving.keep)
    listener = await listening_again(_last_port(home), (PREFERRED_PORT, 0), PORT_PATIENCE_S)
    identity = Identity(listener.getsockname()[1], datetime.now(UTC), time.monotonic())
    audience = _audience()
    parts = await asyncio.to_thread(make_parts, home, redactor, identity.proxy_port, audience)
    before = still_live(parts.store, load(home, boot_id()))
    uncleared = sweep(home, parts.store, {entry.run_id for entry in before})
    async with asyncio.TaskGroup() as group:
        group.create_task(parts.worker.serve(), name="worker")
        group.create_task(parts.ledger.keep(), name="ledger")
        runs = Runs(parts, group)
        parts.worker.configure(_first_configuration(parts.installation))
        parts.worker.listen("", "token", listener)
        await parts.worker.barrier()
        runs.restore.begin(before)
        background = [group.create_task(_reap(parts, info), name=f"reap {info.run_id}") for info in uncleared]
        services = Services(parts, audience, CredentialStore(home), runs.renewal, runs.connect, redactor)
        server = _served(runs, parts, services, partial(_health, identity, parts, services), leaving)
        runner = await serve(server.application(), bind(home.daemon / "daemon.sock"))
        _write_card(home, identity)
        background += _background(
            group, parts, runs, redactor, services, before, partial(_metrics, parts, server.health)
        ) + services.begin(group)
        presence = Presence(home, runner, lock, partial(_write_card, home, identity), partial(_give_way, parts))
        background += _staying(group, presence, parts, lambda: _is_busy(home, runs, server), leaving)
        log.info("daemon ready", extra={"proxy_port": identity.proxy_port, "restored": len(before)})

        await leaving.asked.wait()
        await _end(leaving, parts, runs, server, runner, services)
        for task in background:
            task.cancel()
    _tidied(home, parts)


def _audience() -> Audience:
    """Return who is told of runs, so far: OpenTelemetry, where the user names a place for that."""
    sending = telemetry(os.environ)
    if sending is None:
        return Audience()
    atexit.register(sending.close)  # when everything of the daemon's is down already
    return Audience(sending)


def _tidied(home: Home, parts: Parts) -> None:
    """Leave nothing in memory, and no lock."""
    parts.records.flush()
    remove_lock(home)
    log.info("daemon ended", extra={"kept_runs": len(parts.registry)})


def _served(
    runs: Runs, parts: Parts, services: Services, health: Callable[[], Health], leaving: Leaving
) -> Server:  # fmt: skip
    """Return the API."""
    front = Front(runs, parts.registry, parts.store, services.routes)
    more = Handlers(front, services.events, partial(_metrics, parts, health))
    handlers = (more, AuditHandlers(parts.auditor))
    return Server(front, health, leaving.end_runs, lambda app: [each.add_to(app) for each in handlers])


def _background(
    group: asyncio.TaskGroup,
    parts: Parts,
    runs: Runs,
    redactor: Redactor,
    services: Services,
    before: list[Entry],
    told: Callable[[], str],
) -> list[asyncio.Task[None]]:
    """Start what goes on as long as the daemon lives. before: the runs that it took over. told: its metrics."""
    parts.auditor.begin([entry.info for entry in before])
    parts.auditor.note(INSTALLATION, "settings", audit_facts.settings(_first_configuration(parts.installation)))
    return [
        group.create_task(serve_metrics(_metrics_port(parts.installation), told), name="metrics"),
        group.create_task(parts.records.flush_forever(), name="flush"),
        group.create_task(parts.auditor.forever(), name="audit"),
        group.create_task(runs.restore.resolve_forever(), name="restore"),
        group.create_task(runs.rounds.forever(), name="rounds"),
        group.create_task(_captures(parts, redactor, services).forever(), name="captures"),
        group.create_task(_answers(parts, redactor).forever(), name="answers"),
    ]


def _staying(
    group: asyncio.TaskGroup, presence: Presence, parts: Parts, is_busy: Callable[[], bool], leaving: Leaving
) -> list[asyncio.Task[None]]:
    """Start what decides how long the daemon stays."""
    idle = Idle(_idle_limit(parts.installation), time.monotonic)
    looking = group.create_task(presence.forever(), name="presence")
    leaving.first.append(looking.cancel)  # or it would put back what is taken down on purpose
    return [looking, group.create_task(idle.forever(is_busy, leaving.keep), name="idle")]


def _captures(parts: Parts, redactor: Redactor, services: Services) -> Captures:
    """Return who takes the tokens that the worker captures."""
    vault, answer = CredentialStore(parts.home), parts.worker.answer
    means = Means(parts.registry, vault, parts.grants.provider, redactor.learn, services.renew, answer)
    captures = Captures(means)
    parts.worker.takers["captured"] = captures.take
    return captures


def _answers(parts: Parts, redactor: Redactor) -> Answers:
    """Return who has providers answer what runs ask at endpoints."""
    vault, answer = CredentialStore(parts.home), parts.worker.answer
    means = answers.Means(parts.registry, vault, parts.grants, parts.grants.provider, redactor.learn, answer)
    answering = Answers(means)
    parts.worker.takers["ask"] = parts.worker.takers["ask_signature"] = answering.take
    return answering


async def _end(
    leaving: Leaving, parts: Parts, runs: Runs, server: Server, runner: AppRunner, services: Services
) -> None:
    """Take no more requests, answer those that are under way, let the runs go or end them, write everything down."""
    await services.settle()  # while the runs are still served: a token that was spent must not be lost
    if leaving.keeps_runs:
        await runs.calm()
    server.is_leaving = True
    services.events.close()  # or its streams would hold up the end of requests
    await close(runner, parts.home.daemon / "daemon.sock")  # a registration that is under way still makes a run
    if leaving.keeps_runs:
        await runs.leave()
    await parts.worker.stop()  # exchanges under way end before that, bounded
    if not leaving.keeps_runs:
        await runs.lose_all()
    parts.registry.tell_counts()  # its last records are in them
    await parts.ledger.close()
    parts.guesses.close()
    await parts.auditor.close()


def _give_way(parts: Parts) -> None:
    """End at once, touching no file any more: they are another daemon's now, and so are the runs."""
    parts.records.flush()
    os._exit(1)


def _is_busy(home: Home, runs: Runs, server: Server) -> bool:
    return runs.is_busy or server.in_flight > 0 or is_kept(home)


def make_parts(home: Home, redactor: Redactor, proxy_port: int, audience: Audience) -> Parts:
    """Return the parts of a daemon. Blocking: reads files, loads plugins, makes the CA if there is none."""
    plugins = Plugins.load()
    audience.add(plugins)
    authority = load_or_make(home.ca)
    registry, store = Registry(), RunStore(home)
    write = partial(write_private, state_file(home), lasting=False)  # it holds for this boot only
    ledger = Ledger(partial(_rendered, registry, boot_id()), write)
    registry.on_change = ledger.changed
    records = Records(registry, store, NetworkLog(), audience)
    env = preferring(reduced(os.environ), home.daemon)
    worker = Worker(records, home.daemon / "daemon.log", env, COMMAND)
    auditor = _auditor(home, registry, records, worker)
    return Parts(
        home=home,
        installation=Installation(authority.certificate_pem, authority.key_pem, partial(load_settings, home)),
        registry=registry,
        grants=Grants(CredentialStore(home), plugins, redactor),
        worker=worker,
        records=records,
        store=store,
        observers=audience,
        reaper=RuntimeReaper(plugins),
        proxy_port=proxy_port,
        ledger=ledger,
        auditor=auditor,
        guesses=_guesses(auditor, worker),
    )


def _auditor(home: Home, registry: Registry, records: Records, worker: Worker) -> Auditor:
    """Return the audit's writer, told by the worker what is spent and by the records what is denied."""
    signing = Signing(AuditKeys(home, os.environ))
    auditor = Auditor(home.audit, signing, lambda run_id: run_id in registry, partial(left, home))
    worker.desk, worker.takers["uses"] = auditor.desk.open, auditor.take_uses
    records.denials = auditor
    return auditor


def _guesses(auditor: Auditor, worker: Worker) -> GuessLog:
    """Return who enters what the worker tells of wrong tokens."""
    guesses = GuessLog(partial(auditor.note, INSTALLATION, KIND))
    worker.takers["guessed"] = guesses.take
    return guesses


def _rendered(registry: Registry, boot: str) -> bytes:
    return render(registry, boot)


def _idle_limit(installation: Installation) -> float:
    """Return after how many seconds without runs the daemon leaves; 0 is never."""
    try:
        return installation.settings().daemon.idle_minutes * 60
    except UsageError:  # told to whoever registers a run
        return DaemonSettings().idle_minutes * 60


def _metrics_port(installation: Installation) -> int:
    """Return where on loopback metrics are served, 0 for nowhere."""
    try:
        return installation.settings().metrics.port
    except UsageError:  # told to whoever registers a run
        return 0


def _metrics(parts: Parts, health: Callable[[], Health]) -> str:
    return metrics.text(health(), parts.records.tally, parts.records.lost)


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
        await asyncio.to_thread(remove_files, parts.home, info.run_id)
    except Exception:  # the top of a task: what cannot be removed now must not end the daemon
        log.exception("a lost run could not be reaped", extra={"run_id": info.run_id})


def _health(identity: Identity, parts: Parts, services: Services) -> Health:
    return Health(
        pid=os.getpid(),
        version=moat.__version__,
        proxy_port=identity.proxy_port,
        run_count=len(parts.registry),
        started_at=identity.born.isoformat(timespec="seconds"),
        uptime_s=time.monotonic() - identity.began,
        worker_pid=parts.worker.pid,
        commit=commit(),
        routing_port=services.routes.port,
        grants=services.refreshers.states(),
        bound_run_count=sum(entry.extras.has_values for entry in parts.registry),
        task_count=len(asyncio.all_tasks()),
    )


def _last_port(home: Home) -> int:
    card = read_card(home)
    return card.proxy_port if card is not None else 0


def _write_card(home: Home, identity: Identity) -> None:
    pid = os.getpid()
    started_at = identity.born.isoformat(timespec="seconds")
    card = Card(pid, start_time(pid) or 0, moat.__version__, identity.proxy_port, started_at, boot_id())
    try:
        write_card(home, card)
    except UNWRITABLE as failure:  # a full disk; tried again every second
        log.warning("the daemon's card could not be written", extra={"problem": str(failure)})
