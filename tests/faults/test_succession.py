"""Daemons that follow each other, however they end: the successor has the runs of a simple model, and no others."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from core.daemon.clocks import Inline, TestClock
from core.daemon.making import a_context, an_info
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from moat.api.errors import DaemonError
from moat.api.runs import NetworkPolicy, RunInfo
from moat.daemon.ledger import DEBOUNCE_S, RETRY_S, Ledger
from moat.daemon.registry import Entry, Registry
from moat.daemon.state import load, render, state_file
from moat.daemon.sweep import still_live, sweep
from moat.net.rules import parse_rule
from moat.paths import Home, write_private
from moat.trace.store import RunStore

BOOT = "this-boot"
TURNS = 20  # of the loop: more than anything takes that needs no time
RUNS = st.sampled_from([f"run_{number:012x}" for number in range(4)])
POLICIES = st.sampled_from(
    (
        NetworkPolicy(),
        NetworkPolicy("strict", ("*.example.com",)),
        NetworkPolicy("strict", (), (parse_rule("allow GET api.example.com/**"),)),
    )
)


@dataclass
class Known:
    """A run of the model. requests: as many as were counted; kept: those that no kill can take any more."""

    policy: NetworkPolicy
    requests: int = 0
    kept: int = 0


class Succession(RuleBasedStateMachine):
    """registered is what its caller was told is registered; unsure may come back: the disk was full at their end."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.home = Home(self.folder / "home")
        self.store = RunStore(self.home)
        self.clock = TestClock()
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(Inline())
        self.is_full = False
        self.registered: dict[str, Known] = {}
        self.unsure: set[str] = set()
        self._start()

    @rule(run_id=RUNS, policy=POLICIES)
    def register(self, run_id: str, policy: NetworkPolicy) -> None:
        if self.registry.get(run_id) is not None:
            return
        info = an_info(run_id, policy=policy.mode)
        self.unsure.discard(run_id)
        try:
            self._write(info)
            self.registry.publish(Entry(a_context(run_id, run_id, policy=policy), info))
            self.loop.run_until_complete(self.ledger.settled())
        except (OSError, DaemonError):
            self.registry.remove(run_id)
            self.unsure.add(run_id)  # nobody was told that it is there
        else:
            self._count_as_kept()
            self.registered[run_id] = Known(policy)

    @rule(run_id=RUNS, number=st.integers(1, 5))
    def count(self, run_id: str, number: int) -> None:
        is_live = self.registry.count(run_id, number, denied=0)
        if run_id in self.registered:
            assert is_live
            self.registered[run_id].requests += number

    @rule(run_id=RUNS)
    def end(self, run_id: str) -> None:
        if (entry := self.registry.remove(run_id)) is None:
            return
        self.registered.pop(run_id, None)
        try:
            self._write(replace(entry.info, state="stopped"))
        except OSError:
            self.unsure.add(run_id)

    @rule()
    def pass_time(self) -> None:
        self.registry.tell_counts()
        self._turn()
        for seconds in (DEBOUNCE_S, RETRY_S, DEBOUNCE_S):
            self.clock.passes(seconds)
            self._turn()
        if not self.is_full:
            assert self.ledger.is_settled
            self._count_as_kept()

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        self.is_full = full

    @rule()
    def kill(self) -> None:
        self.keeping.cancel()
        self._turn()
        self._start()

    @rule()
    def leave(self) -> None:
        self.registry.tell_counts()
        self.loop.run_until_complete(self.ledger.close())
        self._turn()
        if not self.is_full:
            self._count_as_kept()
        self._start()

    @invariant()
    def the_runs_are_those_that_were_registered(self) -> None:
        if not hasattr(self, "registry"):
            return
        live = {entry.run_id: entry for entry in self.registry}
        assert live.keys() - self.unsure == self.registered.keys()
        for run_id, known in self.registered.items():
            entry = live[run_id]
            assert (entry.context.policy, self.registry.with_token(run_id)) == (known.policy, entry)
            assert known.kept <= entry.info.requests == known.requests

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.keeping.cancel()
            self._turn()
            self.loop.close()
            shutil.rmtree(self.folder)

    def _start(self) -> None:
        """Be the next daemon."""
        self.registry = Registry()
        entries = still_live(self.store, load(self.home, BOOT))
        if not self.is_full:
            sweep(self.home, self.store, {entry.run_id for entry in entries})
        self.ledger = self.loop.run_until_complete(self._made())
        self.registry.on_change = self.ledger.changed
        self.keeping = self.loop.create_task(self.ledger.keep())
        for entry in entries:
            assert not entry.context.is_open
            self.registry.publish(entry)
            if entry.run_id in self.registered:
                known = self.registered[entry.run_id]
                assert known.kept <= entry.info.requests <= known.requests
                known.requests = entry.info.requests

    async def _made(self) -> Ledger:
        return Ledger(lambda: render(self.registry, BOOT), self._write_state, self.clock.wait)

    def _turn(self) -> None:
        for _ in range(TURNS):
            self.loop.run_until_complete(asyncio.sleep(0))

    def _count_as_kept(self) -> None:
        for known in self.registered.values():
            known.kept = known.requests

    def _write(self, info: RunInfo) -> None:
        if self.is_full:
            raise OSError(28, "no space left on device")
        self.store.write(info)

    def _write_state(self, data: bytes) -> None:
        if self.is_full:
            raise OSError(28, "no space left on device")
        write_private(state_file(self.home), data)


TestSuccession = Succession.TestCase
TestSuccession.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
