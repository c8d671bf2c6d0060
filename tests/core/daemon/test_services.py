from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from moat.api.credentials import Credential, CredentialProvider, Host
from moat.api.errors import GrantRevoked
from moat.api.rules import RewriteResponse, SetHeader
from moat.api.runs import ExchangeRecord
from moat.daemon.audience import Audience
from moat.daemon.extras import RoutedPort
from moat.daemon.grants import Grants
from moat.daemon.protocol import GrantState, RouteRequest
from moat.daemon.services import RealClock, Services
from moat.daemon.upstream import Installation
from moat.log import Redactor
from moat.paths import Home
from moat.proxy.ca import make
from moat.redaction import REDACTED
from support.ports import free_port

from core.daemon.house import House, a_house, registered
from core.daemon.making import OTHER_ID, RUN_ID, Fruit, Orchard, Vault, until
from core.daemon.test_routes import nowhere

pytestmark = pytest.mark.timeout(60)
FRESH = "another-s3cr3t-value"
REJECTED = ExchangeRecord(
    RUN_ID, "", "connect", "GET", "https", "api.apple.test", 443, "/", 401, "forwarded", grants=("apple",)
)


class Ripening(Fruit):
    """A provider that renews. hosts: what it was handed."""

    refresh_every_s = 3600.0

    def __init__(self, name: str, hosts: list[Host]) -> None:
        super().__init__(name)
        self._hosts = hosts

    async def refresh(self, credential: Credential, host: Host) -> Credential:
        self._hosts.append(host)
        return replace(credential, secret=FRESH)


class Trees(Orchard):
    """Plugins whose provider renews."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: list[Host] = []

    def credential_provider(self, name: str) -> CredentialProvider:
        super().credential_provider(name)
        return Ripening(name, self.hosts)


class Cellar(Vault):
    """A store that keeps."""

    kept: dict[str, Credential]

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.kept = {}

    def load(self, name: str) -> Credential:
        return self.kept.get(name) or super().load(name)

    def mark(self, name: str) -> str:
        return getattr(self.kept.get(name), "secret", "")

    def save(self, credential: Credential) -> None:
        self.kept[credential.provider] = credential

    def in_profile(self, profile: str) -> Any:
        return self


@asynccontextmanager
async def some_services(home: Home, port: int = 0) -> AsyncIterator[tuple[Services, House, Audience, Trees, Redactor]]:
    async with a_house(home) as house:
        trees, audience, redactor, cellar = Trees(), Audience(), Redactor(), Cellar("apple")
        ca = make(datetime.now(UTC))
        put: Callable[[str, object], None] = lambda name, value: object.__setattr__(house.parts, name, value)  # noqa: E731 # parts are frozen
        put("grants", Grants(cellar, trees, redactor))
        home.root.mkdir(mode=0o700, exist_ok=True)
        settings = house.parts.installation.settings()
        routing = replace(settings, routing=replace(settings.routing, port=port or free_port()))
        put("installation", Installation(ca.certificate_pem, ca.key_pem, lambda: routing))
        services = Services(house.parts, audience, cellar, house.runs.renewal, nowhere, redactor)
        async with asyncio.TaskGroup() as group:
            background = services.begin(group)
            try:
                yield services, house, audience, trees, redactor
            finally:
                for task in background:
                    task.cancel()


def header(house: House) -> str:
    entry = house.parts.registry.get(RUN_ID)
    assert entry is not None
    (rule,) = entry.context.rules
    assert isinstance(rule, SetHeader)
    return rule.value


async def test_a_401_has_the_grant_renewed_in_the_run_and_the_log_knows_the_new_secret(home: Home) -> None:
    async with some_services(home) as (services, house, audience, trees, redactor):
        await registered(house, grants=("apple",))
        await until(lambda: services.refreshers.states() and services.refreshers.states()[0].next_at)

        with services.events.listening() as listener:
            assert listener is not None
            audience.exchange_done(RUN_ID, replace(REJECTED, status=200))
            audience.exchange_done(RUN_ID, REJECTED)
            await until(lambda: header(house) == f"Bearer {FRESH}")
            kinds = [event.kind for _ in range(3) if (event := await listener.next(5)) is not None]

        assert kinds == ["exchange", "exchange", "grant"]
        assert redactor.clean(header(house).removeprefix("Bearer ")) == REDACTED
        (host,) = trees.hosts
        assert host.env["MOAT_NO_PROMPT"] == "1"
        assert "GITHUB_TOKEN" not in host.env


async def test_what_no_run_spends_any_more_is_followed_no_more(home: Home) -> None:
    async with some_services(home) as (services, house, _, _, _):
        made = await registered(house, grants=("apple",))
        await until(lambda: services.refreshers.states())
        assert isinstance(services.refreshers.states()[0], GrantState)

        await house.runs.end(made.auth_token, 0)

        await until(lambda: services.refreshers.states() == ())


async def test_routes_end_with_their_run_and_names_get_certificates(home: Home) -> None:
    port = free_port()
    async with some_services(home, port) as (services, house, audience, _, _):
        await registered(house, grants=())
        services.routes.put("calm-otter", RouteRequest(RUN_ID, (RoutedPort("web", 3000),)))
        assert services.routes.port == port
        context = services._certifier()("web.calm-otter.localhost")
        assert context.get_ca_certs() == []

        entry = house.parts.registry.get(RUN_ID)
        assert entry is not None
        audience.run_stopped(entry.info, 0)

        services.routes.put("calm-otter", RouteRequest(RUN_ID, (RoutedPort("web", 4000),)))


async def test_the_ledger_hears_of_changes_as_before(home: Home) -> None:
    async with some_services(home) as (_, house, _, _, _):
        await registered(house, grants=())
        house.parts.registry.on_change()
        assert not house.parts.ledger.is_settled


async def test_the_clock_wakes_early_when_it_is_told() -> None:
    clock, event = RealClock(), asyncio.Event()
    event.set()
    await clock.wait(event, 60)
    await clock.wait(asyncio.Event(), 0.001)

    assert 0 <= clock.roll() <= 1
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()


async def test_runs_that_come_or_are_registered_again_hear_of_a_grant_that_was_revoked_before(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def over(self: Ripening, credential: Credential, host: Host) -> Credential:
        raise GrantRevoked("the service says that the token was revoked")

    def is_told(run_id: str = RUN_ID) -> bool:
        entry = house.parts.registry.get(run_id)
        assert entry is not None
        return any(isinstance(rule, RewriteResponse) for rule in entry.context.rules)

    monkeypatch.setattr(Ripening, "refresh", over)
    async with some_services(home) as (services, house, audience, _, _):
        made = await registered(house, grants=("apple",))
        assert not is_told()
        await until(lambda: services.refreshers.states() and services.refreshers.states()[0].next_at)
        audience.exchange_done(RUN_ID, REJECTED)
        await until(is_told)

        await registered(house, grants=("apple",), auth_token=made.auth_token)
        await registered(house, grants=("apple",), run_id=OTHER_ID)
        assert is_told()
        assert is_told(OTHER_ID)
