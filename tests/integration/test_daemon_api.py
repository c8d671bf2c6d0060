"""The published description of the management API, against the real daemon on its socket."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from moat.daemon.lifecycle import ensure_running, stop
from moat.daemon.process import living
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from support.leaks import leaks_below
from support.ports import free_port
from support.unix_http import ORIGIN, session_of

FILE = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
DOCUMENT = json.loads(FILE.read_text())
EXAMPLES = 12  # of each operation; every registration that is let in is a run of this daemon
NOT_HERE = {"shutdown", "events"}  # the one ends the daemon, the other never ends

CHECKS = [
    schemathesis.checks.allow_header_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
    schemathesis.checks.status_code_conformance,
]

schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(operation_id=sorted(NOT_HERE))

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="moat-api-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAT_KEYRING_BACKEND", "file")
        home = Home(private_folder(folder / "home"))
        home.config.write_text(json.dumps({"routing": {"port": free_port()}}))
        ensure_running(home)
        yield home
        stop(home)
        assert living(home) is None
        assert list(leaks_below(folder)) == []
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def session(home: Home) -> requests.Session:
    return session_of(home.daemon / "daemon.sock")


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_server_does_what_its_description_says(case: schemathesis.Case[Any], session: requests.Session) -> None:
    response = case.call(base_url=ORIGIN, session=session)

    _fits(case, response)


@schema.include(path_regex="[{]run[}]|/v1/routes").parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_so_it_does_of_runs_that_live(case: schemathesis.Case[Any], session: requests.Session) -> None:
    run_id, token = _registered(session)
    if "run" in case.path_parameters:
        case.path_parameters["run"] = run_id if case.method == "GET" else token
    if isinstance(case.body, dict) and "run_id" in case.body:
        case.body["run_id"] = run_id
    response = case.call(base_url=ORIGIN, session=session)

    _fits(case, response)
    assert response.status_code != 404
    if case.method == "GET" and response.status_code == 200:
        assert response.json()["run_id"] == run_id


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("POST", "/v1/setup", 200, {"command": ["true"]}),
        ("POST", "/v1/runs", 201, {"run_id": "run_0123456789ab"}),
        ("GET", "/v1/runs", 200, None),
        ("GET", "/v1/runs/{run}", 200, None),
        ("PATCH", "/v1/runs/{run}", 204, {"container_id": "c1"}),
        ("DELETE", "/v1/runs/{run}", 200, {"exit_code": 3}),
        ("POST", "/v1/routes/{agent}", 200, {"run_id": "", "endpoints": [{"name": "web", "port": 3000}]}),
        ("DELETE", "/v1/routes/{agent}", 204, None),
        ("GET", "/v1/health", 200, None),
    ],
)
def test_what_is_asked_rightly_is_done_and_answered_as_described(
    method: str, path: str, status: int, body: dict[str, Any] | None, session: requests.Session
) -> None:
    run_id, token = _registered(session)
    values = {"run": run_id if method == "GET" else token, "agent": "calm-otter"}
    if body is not None and path == "/v1/routes/{agent}":
        body = {**body, "run_id": run_id}
    found: dict[str, Any] = {name: value for name, value in values.items() if f"{{{name}}}" in path}
    sent: dict[str, Any] = {} if body is None else {"body": body, "media_type": "application/json"}
    case = schema[path][method].Case(path_parameters=found, **sent)
    response = case.call(base_url=ORIGIN, session=session)

    _fits(case, response)
    assert response.status_code == status


def test_the_stream_of_events_begins_as_described(session: requests.Session) -> None:
    with session.get(f"{ORIGIN}/v1/events", stream=True, timeout=20) as response:
        first = next(response.iter_lines())

    (described,) = DOCUMENT["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]
    assert (response.status_code, response.headers["content-type"]) == (200, described)
    assert first == b": listening"


def _registered(session: requests.Session) -> tuple[str, str]:
    """Return id and token of a live run; ended with the daemon, or by who takes it."""
    asked = {"run_id": new_run_id(), "needs_door": False}
    made = session.post(f"{ORIGIN}/v1/runs", json=asked, timeout=20).json()
    return made["run_id"], made["auth_token"]


def _fits(case: schemathesis.Case[Any], response: Any) -> None:
    case.validate_response(response, checks=CHECKS)
    assert response.status_code != 500, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"][0].startswith("application/json")
        error = response.json()["error"]
        assert set(error) == {"code", "message", "hint"}
