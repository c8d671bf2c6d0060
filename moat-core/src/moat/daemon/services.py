"""What the daemon does beside runs: events, refreshing, routing. Makes the three, and connects them to the rest.

registry, audience ─▶ Refreshers ─▶ Renewal ─▶ runs' contexts         audience ─▶ Events ─▶ GET /v1/events
                                     doors ◀─ Routes ◀─ POST /v1/routes, a registration's endpoints
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

from moat.api.credentials import Host
from moat.api.runs import ExchangeRecord, RunInfo
from moat.daemon.audience import Audience
from moat.daemon.environment import reduced
from moat.daemon.events import Events
from moat.daemon.parts import Parts
from moat.daemon.protocol import GrantState
from moat.daemon.refresh import Means, Refreshers, Vault
from moat.daemon.renewal import Renewal
from moat.daemon.routes import Routes
from moat.host import RealHost
from moat.log import Redactor
from moat.proxy import ca
from moat.proxy.server.leaves import Leaves
from moat.routing.server import Connect
from moat.routing.table import Table

log = logging.getLogger(__name__)


class Services:
    """Events, refreshers and routes of one daemon."""

    def __init__(
        self, parts: Parts, audience: Audience, vault: Vault, renewal: Renewal, connect: Connect, redactor: Redactor
    ) -> None:
        self._parts = parts
        self.events = Events()
        self._renewal = renewal
        means = Means(
            vault, parts.grants.provider, self._host, self._renewal.renew, self._tell, redactor.learn, RealClock()
        )
        self.refreshers = Refreshers(means, self._renewal.in_use)
        parts.grants.revoked = self.refreshers.revoked
        self.routes = Routes(
            Table(parts.home.daemon / "routes.json"), self._routing_port, self._is_live, connect, self._certifier()
        )
        for each in (self.events, self.routes, Rejections(parts, self.refreshers)):
            audience.add(each)
        parts.registry.on_change = partial(_each, parts.registry.on_change, self.refreshers.changed)
        self.refreshers.changed()

    async def renew(self, profile: str, grant: str) -> None:
        """Put a grant's credential, as it is stored now, into every run that spends it."""
        await self._renewal.renew(profile, grant)

    def begin(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start what goes on as long as the daemon lives. The runs of the daemon before are known by now."""
        self.routes.restore({entry.run_id for entry in self._parts.registry})
        self._refreshing = group.create_task(self.refreshers.forever(), name="refresh")
        return [
            self._refreshing,
            group.create_task(self._renewal.owed_forever(), name="owed"),
            group.create_task(self.routes.forever(), name="routing"),
        ]

    async def settle(self) -> None:
        """Renew no more credentials, and wait, bounded, for those that are being renewed."""
        self._refreshing.cancel()
        await asyncio.wait([self._refreshing])

    def _tell(self, state: GrantState) -> None:
        self.events.tell("grant", grant=asdict(state))

    def _host(self, grant: str) -> Host:
        """Return the machine as a provider may use it here: nobody can be asked, and nobody reads what it says."""
        upstream = self._parts.installation.settings().upstream
        env = {**reduced(os.environ), "MOAT_NO_PROMPT": "1"}
        return RealHost(env, upstream, partial(log.info, "a provider says: %s"), grant)

    def _routing_port(self) -> int:
        return self._parts.installation.settings().routing.port

    def _is_live(self, run_id: str) -> bool:
        return self._parts.registry.get(run_id) is not None

    def _certifier(self) -> Callable[[str], ssl.SSLContext]:
        """Return who makes certificates; the CA's key is read when the first is wanted."""
        made: list[Leaves] = []

        def certify(name: str) -> ssl.SSLContext:
            if not made:
                installation = self._parts.installation
                made.append(Leaves(ca.load(installation.ca_certificate, installation.ca_key)))
            return made[0].context(name)

        return certify


class Rejections:
    """Watches for credentials that a service does not accept any more."""

    watches_exchanges = False

    def __init__(self, parts: Parts, refreshers: Refreshers) -> None:
        self._parts = parts
        self._refreshers = refreshers

    def run_started(self, run: RunInfo) -> None:
        """Take a run whose command may start now."""

    def run_stopped(self, run: RunInfo, exit_code: int) -> None:
        """Take a run that is over."""

    def exchange_done(self, run_id: str, exchange: ExchangeRecord) -> None:
        """Have the grants of a request renewed that was answered with 401."""
        entry = self._parts.registry.get(run_id)
        if exchange.status == 401 and exchange.outcome == "forwarded" and entry is not None:
            for grant in exchange.grants:
                self._refreshers.rejected(entry.info.profile, grant)


class RealClock:
    """The time of this machine."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since the machine was started, but for those in which it slept."""
        return time.monotonic()

    def roll(self) -> float:
        """Return a number between 0 and 1, by chance."""
        return random.random()  # noqa: S311 # spreads requests in time; nothing is kept secret by it

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when event is set, or after seconds."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return


def _each(*functions: Callable[[], None]) -> None:
    for function in functions:
        function()
