"""Prepared runs for the tests of this package."""

from __future__ import annotations

from pathlib import Path

from moat.api.runs import RunSpec
from moat.daemon.protocol import SetupResponse
from moat.paths import Home
from moat.runs.plan import plan
from moat.runs.prepare import Prepared

from core.runs.fakes import FakeClient, FakeRuntime
from core.runs.plans import some_facts


def a_prepared(spec: RunSpec, setup: SetupResponse | None = None, *, sealed: bool = True) -> Prepared:
    facts = some_facts(setup, is_sealed=sealed)
    return Prepared(facts, plan(spec, facts), FakeRuntime([], sealed=sealed), FakeClient(Home(Path("/nowhere")), []))
