"""Metrics on loopback, for a Prometheus that cannot ask a unix socket: `metrics: {port: 9464}` in config.yaml.

Whoever is on this machine may read them; there is no name of anything in them. Nothing else is answered there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from moat.daemon.metrics import CONTENT_TYPE

_NAMES = ("localhost", "127.0.0.1")  # a page in a browser that has another name lead here gets nothing

log = logging.getLogger(__name__)


async def serve_metrics(port: int, text: Callable[[], str]) -> None:
    """Answer GET /metrics until cancelled; 0 is nowhere. A port that cannot be had is logged, and done without."""
    if not port:
        return

    async def answer(request: web.Request) -> web.Response:
        if request.host.partition(":")[0] not in _NAMES:
            raise web.HTTPForbidden
        return web.Response(body=text().encode(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()
    except OSError as failure:
        problem = failure.strerror or str(failure)
        log.warning("metrics are not served on loopback", extra={"port": port, "problem": problem})
    finally:
        await runner.cleanup()
