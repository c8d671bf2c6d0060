"""Where the hostile tests run: a host and an internet of their own, and every kind of sandbox on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.installation import Installation
from support.internet import Internet
from support.world import World, a_world

from hostile.sandbox import BUBBLEWRAP, PLACES, Live, Place, live_run

SECRET = "s3cr3t-github-token"
PUBLIC = (
    ("api.github.com", "140.82.112.5"), ("github.com", "140.82.112.4"), ("uploads.github.com", "140.82.112.6"),
    ("www.example.com", "93.184.216.34"), ("api.example.com", "93.184.216.35"), ("a.example.org", "93.184.216.36"),
    ("example.org", "93.184.216.37"), ("evil.test", "66.66.66.66"),
)  # fmt: skip
ALLOWED = ("api.example.com", "*.example.org", "www.example.com:8443")


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A host whose every packet outwards is seen."""
    with a_world() as made:
        yield made


@pytest.fixture(params=PLACES, ids=str, scope="module")
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of sandbox in turn."""
    assert isinstance(request.param, Place)
    return request.param


@dataclass(frozen=True)
class Bench:
    """Two live runs beside each other, the secret that one of them has the use of, and the internet they talk to."""

    made: Installation
    free: Live
    strict: Live
    internet: Internet


@pytest.fixture(scope="session")
def _bench(world: World) -> Iterator[Bench]:
    for host, *addresses in PUBLIC:
        world.internet.name(host, *addresses)
    with world.installation() as made:
        made.grant("github", SECRET)
        allow = [word for host in ALLOWED for word in ("--allow-host", host)]
        with (
            live_run(made, BUBBLEWRAP, "--grant", "github", name="free") as free,
            live_run(made, BUBBLEWRAP, "--policy", "strict", *allow, name="strict") as strict,
        ):
            yield Bench(made, free, strict, world.internet)


@pytest.fixture
def bench(_bench: Bench) -> Bench:
    """Two live runs, and an internet that has seen nothing yet."""
    _bench.internet.forget()
    return _bench


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests the time that real sandboxes need on a small machine."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120))
