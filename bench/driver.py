"""The daemon's part for the bench: keeps the real worker through the real link, and writes what it reports.

bench.driver ── moat.daemon.worker.Worker ── frames ──▶ moat.proxy.server.worker
     └─▶ network.jsonl and audit.db, as the daemon writes them
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import signal
import socket
from pathlib import Path

from moat.api.rules import Match, Rule, SetHeader
from moat.api.runs import NetworkPolicy, RunContext
from moat.audit.chain import STARTED
from moat.daemon.audit_key import AuditKeys
from moat.daemon.audit_seal import Signing
from moat.daemon.auditor import Auditor
from moat.daemon.worker import COMMAND, Worker
from moat.paths import Home
from moat.proxy.ca import load
from moat.proxy.messages import Configure, Exchanges
from moat.trace.network import FLUSH_EVERY_S, NetworkLog

from bench.ground import HOST, OPEN_HOST, SECRET
from bench.peers import TOKEN

_RUN = "run_{:012x}"


class Trace:
    """Writes every exchange, as the daemon does."""

    def __init__(self, folder: Path) -> None:
        self.log = NetworkLog(limit_bytes=1 << 40)  # a full trace would be a cheaper one
        self._folder = folder

    def exchanges(self, report: Exchanges) -> None:
        """Take finished exchanges of one run."""
        self.log.append(self._folder / report.run_id / "network.jsonl", report.lines)

    def named(self, run_id: str, name: str, address: str) -> None:
        """Take a name; none are given out here."""


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
    trace = Trace(folder / f"moat-{options.listen}")
    worker = Worker(trace, folder / "worker.log", dict(os.environ), COMMAND)
    pins = dict.fromkeys((HOST, OPEN_HOST), options.address)
    worker.configure(Configure(ca.certificate_pem, ca.key_pem, ca.certificate_pem, pins, (f"{options.address}/32",)))
    for context in contexts(options):
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
        while not ended.is_set():
            trace.log.flush()
            await _wait(ended)
        await worker.stop()
        await auditor.close()
        auditing.cancel()


async def _wait(ended: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(FLUSH_EVERY_S):
            await ended.wait()
    except TimeoutError:
        return


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    for name in ("folder", "address"):
        parser.add_argument(f"--{name}")
    for name in ("listen", "origin", "open-origin", "runs", "rules"):
        parser.add_argument(f"--{name}", type=int)
    asyncio.run(drive(parser.parse_args()))


if __name__ == "__main__":
    main()
