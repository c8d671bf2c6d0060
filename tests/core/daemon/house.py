"""A daemon's runs with everything around them, in the test's own loop: a stand-in worker, plugins that remember."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from moat.daemon.parts import Parts
from moat.daemon.protocol import RegisterRequest, RegisterResponse
from moat.daemon.registry import Registry
from moat.daemon.runs import Runs
from moat.paths import Home

from core.daemon.making import RUN_ID, Orchard, a_listener, a_worker, some_parts, some_records


@dataclass
class House:
    """Runs with everything around it. port: where the stand-in worker shows what is in force."""

    runs: Runs
    parts: Parts
    orchard: Orchard
    port: int

    def state(self, run_id: str = RUN_ID) -> str:
        return self.parts.store.read(run_id).state


@asynccontextmanager
async def a_house(home: Home) -> AsyncIterator[House]:
    orchard, registry = Orchard(), Registry()
    records = some_records(home, registry, orchard)
    async with a_worker(home.root.parent, records) as worker:
        with a_listener() as (sock, port):
            worker.listen("", "token", sock)
            parts = some_parts(home, orchard, worker, registry, records)
            async with asyncio.TaskGroup() as group:
                group.create_task(parts.ledger.keep())
                auditing = group.create_task(parts.auditor.forever())
                runs = Runs(parts, group)
                try:
                    yield House(runs, parts, orchard, port)
                    await runs.lose_all()
                finally:
                    await parts.ledger.close()
                    await parts.auditor.close()
                    auditing.cancel()


def a_request(run_id: str = RUN_ID, **changes: Any) -> RegisterRequest:
    values: dict[str, Any] = {"run_id": run_id, "name": "calm-otter", "runtime": "bubblewrap", "command": ("true",)}
    return RegisterRequest(**(values | changes))


async def registered(house: House, **changes: Any) -> RegisterResponse:
    return await house.runs.register(a_request(needs_door=False, **changes))
