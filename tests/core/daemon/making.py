"""Small factories for the daemon's tests: real parts around a stand-in worker, in a temporary home."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from moat.api.container import ContainerSetup
from moat.api.credentials import Credential, CredentialProvider, Host
from moat.api.endpoints import EndpointProvider, Question, Reply
from moat.api.errors import GrantMissing, UsageError
from moat.api.rules import Match, Rule, SetHeader
from moat.api.runs import Contribution, ExchangeRecord, NetworkPolicy, RunContext, RunInfo, RunSpec
from moat.config.settings import Settings
from moat.daemon.audit_key import AuditKeys
from moat.daemon.audit_notes import left
from moat.daemon.audit_seal import Signing
from moat.daemon.auditor import Auditor
from moat.daemon.grants import Grants
from moat.daemon.guesses import GuessLog
from moat.daemon.ledger import Ledger
from moat.daemon.parts import Parts
from moat.daemon.process import boot_id
from moat.daemon.records import Records
from moat.daemon.registry import Registry, hash_token
from moat.daemon.state import render, state_file
from moat.daemon.upstream import Installation
from moat.daemon.worker import Worker
from moat.log import Redactor
from moat.paths import Home, write_private
from moat.proxy.messages import Exchanges
from moat.trace.network import NetworkLog
from moat.trace.store import RunStore

SECRET = "tok-s3cr3t-value"
RUN_ID = "run_0123456789ab"
OTHER_ID = "run_ba9876543210"
STANDIN = (sys.executable, str(Path(__file__).with_name("standin_worker.py")))


class Fruit(CredentialProvider):
    """A provider with one rule and one variable."""

    summary = "for tests"

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc] # one class for several names

    async def grant(self, host: Host) -> Credential:
        raise NotImplementedError

    async def accept(self, secret: str, host: Host) -> Credential:
        raise NotImplementedError

    def rules(self, credential: Credential) -> list[Rule]:
        return [SetHeader(Match(f"api.{self.name}.test"), "Authorization", f"Bearer {credential.secret}", self.name)]

    def container(self, credential: Credential) -> ContainerSetup:
        return ContainerSetup(env={f"{self.name.upper()}_TOKEN": "moat-placeholder"})


class Vault:
    """A store with the given names in it."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.profile = ""

    def load(self, name: str) -> Credential:
        if name not in self.names:
            raise GrantMissing(f"no {name} credential is stored", hint=f"run: moat grant {name}")
        return Credential(name, f"{SECRET}-{self.profile}" if self.profile else SECRET, "test")

    def mark(self, name: str) -> str:
        return name if name in self.names else ""

    def in_profile(self, profile: str) -> Vault:
        vault = copy.copy(self)
        vault.profile = profile
        return vault


class Orchard:
    """Plugins: the providers apple, pear and plum, one contribution, and a memory of what was observed."""

    def __init__(self, *contributions: tuple[str, Contribution]) -> None:
        self.contributions = list(contributions)
        self.seen: list[tuple[Any, ...]] = []
        self.endpoints: dict[str, EndpointProvider] = {}
        self.pulses: dict[str, bool | None] = {}

    def credential_provider(self, name: str) -> CredentialProvider:
        if name not in ("apple", "pear", "plum"):
            raise UsageError(f"no provider called {name!r} is installed", hint=f"run: pip install moat-provider-{name}")
        return Fruit(name)

    def endpoint_provider(self, name: str) -> EndpointProvider | None:
        return self.endpoints.get(name)

    async def respond(self, question: Question, credential: Credential) -> Reply:
        provider = self.endpoint_provider(credential.provider)
        assert provider is not None
        return await provider.respond(question, credential)

    def configure_run(self, spec: RunSpec) -> list[tuple[str, Contribution]]:
        self.seen.append(("configure", spec))
        return self.contributions

    def run_started(self, run: RunInfo) -> None:
        self.seen.append(("started", run.run_id))

    def run_stopped(self, run: RunInfo, exit_code: int) -> None:
        self.seen.append(("stopped", run.run_id, exit_code))

    watches_exchanges = True

    def exchange_done(self, run_id: str, exchange: ExchangeRecord) -> None:
        self.seen.append(("exchange", run_id))

    async def pulse(self, runtime: str, run_id: str) -> bool | None:
        self.seen.append(("asked", runtime, run_id))
        return self.pulses.get(run_id, True)

    async def reap(self, runtime: str, run_id: str) -> None:
        self.seen.append(("reaped", runtime, run_id))


def a_context(run_id: str = RUN_ID, token: str = "t" * 64, **changes: Any) -> RunContext:
    values: dict[str, Any] = {"run_id": run_id, "token_sha256": hash_token(token), "policy": NetworkPolicy()}
    return RunContext(**(values | changes))


def an_info(run_id: str = RUN_ID, **changes: Any) -> RunInfo:
    values: dict[str, Any] = {
        "run_id": run_id, "name": "calm-otter", "runtime": "bubblewrap", "policy": "permissive", "grants": (),
        "workspace": "/w", "command": ("true",), "started_at": "2026-01-01T00:00:00+00:00", "state": "running",
    }  # fmt: skip
    return RunInfo(**(values | changes))


@contextmanager
def a_listener() -> Iterator[tuple[socket.socket, int]]:
    """A loopback listener to be handed to a worker; whoever takes it closes it."""
    sock = socket.create_server(("127.0.0.1", 0))
    try:
        yield sock, sock.getsockname()[1]
    finally:
        sock.close()


async def ask(port: int, line: str = "state") -> dict[str, Any]:
    """Send one line to a stand-in worker's listener and return its state; {} when it died of the question."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(line.encode() + b"\n")
        answer = await reader.readline()
    finally:
        writer.close()
    return dict(json.loads(answer)) if answer else {}


async def until(claim: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait until claim is true, bounded."""
    async with asyncio.timeout(timeout_s):
        while not claim():  # noqa: ASYNC110 # another process's doing: there is no event to wait for
            await asyncio.sleep(0.01)


@asynccontextmanager
async def a_worker(tmp_path: Path, observer: Any = None) -> AsyncIterator[Worker]:
    """A served stand-in worker, ended afterwards."""
    worker = Worker(observer or _Deaf(), tmp_path / "worker.log", dict(os.environ), STANDIN)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.serve())
        try:
            yield worker
        finally:
            await worker.stop()


def some_parts(home: Home, orchard: Orchard, worker: Worker, registry: Registry, records: Records) -> Parts:
    store = RunStore(home)
    return Parts(
        home=home,
        installation=Installation("CERT", "KEY-s3cr3t", Settings),
        registry=registry,
        grants=Grants(Vault("apple", "pear"), orchard, Redactor()),
        worker=worker,
        records=records,
        store=store,
        observers=orchard,
        reaper=orchard,
        proxy_port=19080,
        ledger=a_ledger(home, registry),
        auditor=an_auditor(home, registry),
        guesses=GuessLog(lambda facts: None),
    )


def an_auditor(home: Home, registry: Registry) -> Auditor:
    """The audit's writer; whoever uses it runs `forever`, and closes it."""
    signing = Signing(AuditKeys(home, {"MOAT_KEYRING_BACKEND": "file"}))
    return Auditor(home.audit, signing, lambda run_id: run_id in registry, lambda: left(home))


def a_ledger(home: Home, registry: Registry) -> Ledger:
    """The keeper of runs.json; whoever uses it runs `keep`."""
    ledger = Ledger(lambda: render(registry, boot_id()), partial(write_private, state_file(home)))
    registry.on_change = ledger.changed
    return ledger


def some_records(home: Home, registry: Registry, orchard: Orchard) -> Records:
    return Records(registry, RunStore(home), NetworkLog(), orchard)


class _Deaf:
    def exchanges(self, report: Exchanges) -> None:
        del report

    def named(self, run_id: str, name: str, address: str) -> None:
        del run_id, name, address
