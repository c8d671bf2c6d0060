from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from moat.api.errors import RunNotFound, UsageError
from moat.api.runs import RunInfo
from moat.cli import route as module
from moat.cli.route import parse_endpoints, route
from moat.daemon.extras import RoutedPort
from moat.daemon.protocol import RouteRequest, RouteResponse
from moat.paths import Home
from moat.trace.store import RunStore

RUN = RunInfo(
    "run_0123456789ab", "calm-otter", "", "permissive", (), "/w", ("x",), "2026-01-01T00:00:00+00:00", "running"
)
ASKED: list[Any] = []


class Client:
    def __init__(self, home: Home) -> None:
        del home

    def route(self, agent: str, request: RouteRequest) -> RouteResponse:
        ASKED.append((agent, request))
        urls = {each.name: f"http://{each.name}.{agent}/" for each in request.endpoints}
        return RouteResponse(agent, 8080, urls, {each.name: each.publish or 40000 for each in request.endpoints})

    def unroute(self, agent: str) -> None:
        ASKED.append(agent)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "DaemonClient", Client)
    monkeypatch.setattr(module, "live_ids", lambda home: {RUN.run_id})
    RunStore(Home(tmp_path / "home")).write(RUN)
    ASKED.clear()


def invoke(*words: str) -> Result:
    return CliRunner().invoke(route, list(words))


def test_ports_are_routed_under_the_run_s_name_and_shown() -> None:
    result = invoke("calm-otter", "web:3000", "api:4000")

    shown = [f"http://{name}.calm-otter/ 127.0.0.1:40000" for name in ("api", "web")]
    assert result.stdout.splitlines() == shown
    ((agent, request),) = ASKED
    assert agent == "calm-otter"
    assert request == RouteRequest(RUN.run_id, (RoutedPort("web", 3000), RoutedPort("api", 4000)))


def test_a_port_of_loopback_can_be_chosen() -> None:
    result = invoke("calm-otter", "web:3000", "api:4000", "--publish", "web:13000")

    assert result.stdout.splitlines()[1] == "http://web.calm-otter/ 127.0.0.1:13000"
    assert ASKED[0][1].endpoints == (RoutedPort("web", 3000, 13000), RoutedPort("api", 4000))
    refused = invoke("calm-otter", "web:3000", "--publish", "db:5432").exception
    assert isinstance(refused, UsageError)
    assert "--publish names db" in refused.problem


def test_another_name_can_be_given_and_taken_away() -> None:
    invoke("calm-otter", "web:3000", "--as", "demo")
    invoke("calm-otter", "--remove", "--as", "demo")

    assert [each if isinstance(each, str) else each[0] for each in ASKED] == ["demo", "demo"]


@pytest.mark.parametrize("words", [("calm-otter",), ("calm-otter", "web:3000", "--remove"), ("calm-otter", "web")])
def test_what_makes_no_sense_is_refused(words: tuple[str, ...]) -> None:
    result = invoke(*words)

    assert isinstance(result.exception, UsageError)
    assert ASKED == []


def test_a_run_that_is_not_there_is_told() -> None:
    assert isinstance(invoke("keen-lark", "web:3000").exception, RunNotFound)


@pytest.mark.parametrize("text", ["web", "web:", ":3000", "web:http", "web:300000", "web:1:2"])
def test_an_endpoint_is_a_name_and_a_port(text: str) -> None:
    with pytest.raises(UsageError):
        parse_endpoints([text])
