"""What holds for every test: no network but loopback, no forgotten skip, no secret left in what moat wrote."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.groups import lines_first, scheduler
from support.leaks import homes_below, leaks_below
from support.loops import ServingPolicy

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")
END = "moat/end"  # in pytest's cache, for scripts/again.py, which an exit code tells too little


def pytest_configure() -> None:
    asyncio.set_event_loop_policy(ServingPolicy())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skips", action="store_true", help="fail when a test not named in allowed_skips.txt skips"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lines_first(items)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, whose own marks of groups do nothing with pytest 9
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return scheduler(config, log)


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        sends = self.type == socket.SOCK_STREAM  # to connect a datagram socket sends nothing
        if (
            sends
            and self.family in (socket.AF_INET, socket.AF_INET6)
            and not ipaddress.ip_address(address[0]).is_loopback
        ):
            raise AssertionError(f"a test tried to reach {address}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MOAT_")]:
        monkeypatch.delenv(name)
    for name in ("GITHUB_TOKEN", "GH_TOKEN", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "CODEX_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    complaints = [*_leaks(session.config), *_forgotten_skips(session.config)]
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    for complaint in complaints:
        if reporter is not None:
            reporter.write_line(f"FAILED {complaint}", red=True)
    if complaints and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    cache = getattr(session.config, "cache", None)  # none with -p no:cacheprovider
    if cache is not None and not hasattr(session.config, "workerinput"):  # xdist's workers end before
        cache.set(END, {"status": int(exitstatus), "complaints": complaints})


def _leaks(config: pytest.Config) -> Iterator[str]:
    """Look for test secrets in everything that moat wrote below this session's folder.

    Installations elsewhere are looked at when they are taken away: support/installation.py.
    """
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is None or factory._basetemp is None:
        return
    for home in homes_below(factory._basetemp):
        yield from leaks_below(home)


def _forgotten_skips(config: pytest.Config) -> Iterator[str]:
    if not config.getoption("--fail-on-skips"):
        return
    lines = [line for line in ALLOWED_SKIPS.read_text().splitlines() if line.strip() and not line.startswith("#")]
    allowed = tuple(line.split("  ", 1)[0].strip() for line in lines)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    for report in reporter.stats.get("skipped", []) if reporter is not None else []:
        if not report.nodeid.startswith(allowed or ("\0",)):
            yield f"skipped without leave: {report.nodeid}"
