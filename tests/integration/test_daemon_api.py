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
from moat.paths import Home, private_folder
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
        ensure_running(home)
        yield home
        stop(home)
        assert living(home) is None
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def session(home: Home) -> requests.Session:
    return session_of(home.daemon / "daemon.sock")


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_server_does_what_its_description_says(case: schemathesis.Case[Any], session: requests.Session) -> None:
    response = case.call(base_url=ORIGIN, session=session)

    case.validate_response(response, checks=CHECKS)
    assert response.status_code != 500, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"][0].startswith("application/json")
        error = response.json()["error"]
        assert set(error) == {"code", "message", "hint"}
