"""The daemon's part for the bench: keeps the real worker through the real link, and writes what it reports.

bench.driver ── moat.daemon.worker.Worker ── frames ──▶ moat.proxy.server.worker
     └─▶ counters, network.jsonl and audit.db, as the daemon keeps them
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import signal
import socket
import sys
from pathlib import Path

from moat.api.rules import Match, Rule, SetHeader
from moat.api.runs import NetworkPolicy, RunContext, RunInfo
from moat.audit.chain import STARTED
from moat.daemon.audience import Audience
from moat.daemon.audit_key import AuditKeys
from moat.daemon.audit_seal import Signing
from moat.daemon.auditor import Auditor
from moat.daemon.records import Records
from moat.daemon.registry import Entry, Registry
from moat.daemon.suites import preferring
from moat.daemon.worker import COMMAND, Worker
from moat.paths import Home
from moat.proxy.ca import load
from moat.proxy.messages import Configure
from moat.trace.network import NetworkLog
from moat.trace.store import RunStore

from bench.ground import HOST, OPEN_HOST, SECRET
from bench.peers import TOKEN

_RUN = "run_{:012x}"


UNRECORDED = (sys.executable, "-P", "-m", "bench.unrecorded")


def contexts(options: argparse.Namespace) -> list[RunContext]:
    """Return the run that the load belongs to, and as many others as were asked for."""
    wanted = Match(f"{HOST}:{options.origin}")
    rules: list[Rule] = [SetHeader(wanted, "Authorization", SECRET, "example")]
    rules += [SetHeader(Match(f"h{n}.example.net"), "Authorization", SECRET, f"g{n}") for n in range(options.rules - 1)]
    policy = NetworkPolicy("strict", (f"{OPEN_HOST}:{options.open_origin}",))
    return [
        RunContext(_RUN.format(n), hashlib.sha256(f"{TOKEN}{n or ''}".encode()).hexdigest(), policy,
                   tuple(rules) if n == 0 else (), is_open=True)
        for n in range(options.runs)
    ]  # fmt: skip


def recorded(folder: Path, runs: list[RunContext]) -> Records:
    """Return who takes what the worker reports, for live runs, with a trace that never gets full."""
    registry = Registry()
    for context in runs:
        info = RunInfo(context.run_id, context.run_id, "process", "strict", (), "/", ("true",), "2026-01-01T00:00:00Z")
        registry.publish(Entry(context, info))
    return Records(registry, RunStore(Home(folder)), NetworkLog(limit_bytes=1 << 40), Audience())


def audited(folder: Path, worker: Worker) -> Auditor:
    """Return the audit's writer, which the worker asks before a credential leaves."""
    signing = Signing(AuditKeys(Home(folder), {"MOAT_KEYRING_BACKEND": "file"}))
    auditor = Auditor(Home(folder).audit, signing, lambda _: True)
    worker.desk, worker.takers["uses"] = auditor.desk.open, auditor.take_uses
    return auditor


async def drive(options: argparse.Namespace) -> None:
    """Keep the worker until told to end."""
    folder = Path(options.folder)
    ca = load((folder / "ca.pem").read_text(), (folder / "ca-with-key.pem").read_text())
    runs = contexts(options)
    records = recorded(folder / f"moat-{options.listen}", runs)
    command = UNRECORDED if options.unrecorded else COMMAND
    worker = Worker(records, folder / "worker.log", preferring(os.environ, folder), command)
    pins = dict.fromkeys((HOST, OPEN_HOST), options.address)
    worker.configure(Configure(ca.certificate_pem, ca.key_pem, ca.certificate_pem, pins, (f"{options.address}/32",)))
    for context in runs:
        worker.put(context)
    auditor = audited(folder / f"moat-{options.listen}", worker)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.serve())
        auditing = group.create_task(auditor.forever())
        await auditor.noted(_RUN.format(0), STARTED, {})
        await worker.barrier()
        worker.listen("", "token", socket.create_server(("127.0.0.1", options.listen), backlog=4096))
        flushing = group.create_task(records.flush_forever())
        await ended.wait()
        await worker.stop()
        await auditor.close()
        records.flush()
        for task in (auditing, flushing):
            task.cancel()


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    for name in ("folder", "address"):
        parser.add_argument(f"--{name}")
    for name in ("listen", "origin", "open-origin", "runs", "rules"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--unrecorded", action="store_true", help="with trace and audit off")
    asyncio.run(drive(parser.parse_args()))


if __name__ == "__main__":
    main()
