"""Server tests run on the loop that the worker runs on, and let it close what they aborted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    del config, item
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
async def _closed_behind() -> AsyncIterator[None]:
    yield
    for _ in range(5):  # an aborted transport closes a turn or two later
        await asyncio.sleep(0)
