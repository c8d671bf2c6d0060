"""Real clients in real sandboxes: the places where a run can live, each with an installation that has a GitHub grant.

Services (loopback, TLS, 401 without the credential) ◀── moat's proxy ◀── client in a run ◀── test
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.inside import make_inside
from support.installation import installation
from support.places import PLACES, Place, docker_answers, sandboxes_work
from support.services import Services, running_services

SECRET = "ghp_s3cr3t"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests more time than the others: they start daemons, sandboxes and containers.

    And the first of them has everything made that is brought into runs, which go alone takes minutes for, once.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """What stands in for GitHub."""
    with running_services(tmp_path_factory.mktemp("projects")) as running:
        yield running


@pytest.fixture(scope="session")
def inside() -> Iterator[Path]:
    """The folder of client programs that every run gets; outside pytest's own folders, which only root may enter."""
    folder = Path(tempfile.mkdtemp(prefix="moat-inside-"))
    make_inside(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session", params=PLACES)
def place(request: pytest.FixtureRequest, services: Services, inside: Path) -> Iterator[Place]:
    """A runtime and who uses it, ready for runs: settings, a grant, a workspace, the programs."""
    runtime, user = request.param
    if runtime == "docker" and not docker_answers():
        pytest.skip("no Docker engine answers here, or it has no debian:bookworm-slim")
    if runtime == "bubblewrap" and not sandboxes_work():
        pytest.skip("bubblewrap is not installed or may not make sandboxes here")
    with make_place(runtime, user, services, inside) as made:
        yield made


@contextlib.contextmanager
def make_place(
    runtime: str, user: str, services: Services, inside: Path, resolve: Mapping[str, str] | None = None
) -> Iterator[Place]:
    """Make an installation with a grant whose secret the services know. resolve: hosts that lead elsewhere."""
    secret = f"{SECRET}-{runtime}-{user or 'root'}"
    with installation(user) as made:
        services.seen.clear()  # another place asked with another credential
        made.configure({"upstream": services.settings(made.home, resolve or {})})
        made.grant("github", secret)
        services.secrets.add(secret)
        yield Place(made, runtime, secret, services, inside)
