from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import moat
from aiohttp.web import Application
from moat.api.runs import PolicyMode
from moat.daemon.audit_api import AuditHandlers
from moat.daemon.handlers import Handlers
from moat.daemon.openapi import document
from moat.daemon.protocol import Health, RegisterRequest
from moat.daemon.server import Server
from moat.ids import NAME, RUN_ID, new_run_id, new_token

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docs" / "reference" / "openapi.json"


def test_the_published_document_is_current() -> None:
    assert json.loads(FILE.read_text()) == document(moat.__version__), "run: .venv/bin/python scripts/openapi.py"
    assert subprocess.run([sys.executable, ROOT / "scripts" / "openapi.py", "--check"]).returncode == 0


def test_every_field_that_crosses_is_in_it() -> None:
    schemas = document("1")["components"]["schemas"]

    assert set(schemas["RegisterRequest"]["properties"]) == {each.name for each in fields(RegisterRequest)}
    assert set(schemas["Health"]["properties"]) == {each.name for each in fields(Health)}


def test_patterns_are_those_that_the_daemon_checks() -> None:
    found = document("1")
    schemas, paths = found["components"]["schemas"], found["paths"]
    register = {name: field.get("pattern", "") for name, field in schemas["RegisterRequest"]["properties"].items()}

    assert re.fullmatch(register["run_id"], new_run_id())
    assert re.fullmatch(register["auth_token"], new_token())
    assert RUN_ID.pattern in register["run_id"]
    assert NAME.pattern in register["name"] == register["profile"] == register["runtime"]
    assert register["network_policy"] == f"^({'|'.join(get_args(PolicyMode))})$"
    assert paths["/v1/runs/{run}"]["get"]["parameters"][0]["schema"]["pattern"] == register["run_id"]
    assert re.fullmatch(paths["/v1/runs/{run}"]["delete"]["parameters"][0]["schema"]["pattern"], new_token())


def test_every_path_that_is_served_is_in_it_and_no_other() -> None:
    handlers = Handlers(None, None)  # type: ignore[arg-type] # only its paths are asked for
    audit = AuditHandlers(None)  # type: ignore[arg-type] # same

    def more(app: Application) -> None:
        handlers.add_to(app)
        audit.add_to(app)

    server = Server(None, lambda: None, lambda: None, more)  # type: ignore[arg-type,return-value] # same
    served = {
        (route.resource.canonical.replace("{token}", "{run}").replace("{id}", "{run}"), route.method.lower())
        for route in server.application().router.routes()
        if route.resource is not None and route.method != "HEAD"
    }

    told = {(path, method) for path, methods in document("1")["paths"].items() for method in methods}
    assert told == served
