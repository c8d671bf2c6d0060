"""The management API as an OpenAPI document, made of the values that cross it: docs/reference/openapi.json.

Written by scripts/openapi.py; a test compares. What a path does is said in docs/reference/daemon-api.md.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from moat.api.runs import RunInfo
from moat.daemon.protocol import (
    EndRequest,
    Health,
    NoteRequest,
    PatchRequest,
    RegisterRequest,
    RegisterResponse,
    RouteRequest,
    RouteResponse,
    SetupRequest,
    SetupResponse,
)

Json: TypeAlias = dict[str, Any]

_TAKEN = (SetupRequest, RegisterRequest, PatchRequest, EndRequest, RouteRequest, NoteRequest)
_GIVEN = (SetupResponse, RegisterResponse, RunInfo, Health, RouteResponse)
_RUN_ID, _TOKEN = "^run_[0-9a-f]{12}$", "^[0-9a-f]{64}$"
_PATTERNS = {  # of what is checked beyond its type: by model and field
    ("RegisterRequest", "run_id"): _RUN_ID,
    ("RegisterRequest", "auth_token"): "^([0-9a-f]{64})?$",
    ("RegisterRequest", "name"): "^([a-z0-9][a-z0-9_-]{0,62})?$",
    ("RegisterRequest", "runtime"): "^([a-z0-9][a-z0-9_-]{0,62})?$",
    ("RegisterRequest", "profile"): "^([a-z0-9][a-z0-9_-]{0,62})?$",
    ("SetupRequest", "profile"): "^([a-z0-9][a-z0-9_-]{0,62})?$",
    ("RegisterRequest", "network_policy"): "^(permissive|strict)$",
    ("SetupRequest", "network_policy"): "^(permissive|strict)$",
    ("RouteRequest", "run_id"): _RUN_ID,
    ("RegisterRequest", "plan_sha256"): "^([0-9a-f]{64})?$",
    ("NoteRequest", "run_id"): "^(run_[0-9a-f]{12})?$",
    ("RegisterResponse", "run_id"): _RUN_ID,
    ("RegisterResponse", "auth_token"): _TOKEN,
    ("RunInfo", "run_id"): _RUN_ID,
}
_REF = "#/components/schemas/{model}"
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "hint"],
            "properties": {name: {"type": "string"} for name in ("code", "message", "hint")},
        }
    },
}


def document(version: str) -> Json:
    """Return the document. version: of moat."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "moat daemon", "version": version, "description": (
            "HTTP over the unix socket $MOAT_HOME/daemon/daemon.sock, for the user it belongs to. "
            "Fields are only ever added: ignore those you do not know, and expect 404 for paths of a newer version."
        )},
        "paths": _paths(),
        "components": {"schemas": {**_schemas(), "Error": _ERROR}},
    }  # fmt: skip


def _paths() -> Json:
    token, run, agent = (_parameter(name, what, pattern) for name, what, pattern in (
        ("run", "the run's token", _TOKEN), ("run", "the run's id", _RUN_ID),
        ("agent", "the name in its addresses", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
    ))  # fmt: skip
    return {
        "/v1/setup": {"post": _operation("setup", "What grants put into a run; changes nothing", _ok(SetupResponse),
                                         takes=SetupRequest)},
        "/v1/runs": {
            "get": _operation("runs", "Live runs, without tokens", _ok(RunInfo, is_list=True)),
            "post": _operation("register", "Make a run known; with auth_token, again", _ok(RegisterResponse, "201"),
                               takes=RegisterRequest),
        },
        "/v1/runs/{run}": {  # one template: OpenAPI knows no two that differ by name only
            "get": _operation("run", "One run, live or ended, with its counters", _ok(RunInfo), run),
            "patch": _operation("tell_container", "The second phase: the sandbox exists", _empty("204"), token,
                                takes=PatchRequest),
            "delete": _operation("end", "End a run", _ok(RunInfo), token, takes=EndRequest, is_optional=True),
        },
        "/v1/routes/{agent}": {
            "post": _operation("route", "Reach ports of a run by name", _ok(RouteResponse), agent, takes=RouteRequest),
            "delete": _operation("unroute", "Reach them no more", _empty("204"), agent),
        },
        "/v1/audit": {"post": _operation("note", "Enter into the audit what was done beside the daemon", _empty("204"),
                                         takes=NoteRequest)},
        "/v1/audit/seal": {"post": _operation("seal", "Enter all that happened, and sign it if it can be",
                                              _empty("204"))},
        "/v1/health": {"get": _operation("health", "How the daemon is", _ok(Health))},
        "/v1/metrics": {"get": _operation("metrics", "What operators count, as Prometheus reads it",
                                          {"200": {"description": "text, version 0.0.4",
                                                   "content": {"text/plain": {"schema": {"type": "string"}}}}})},
        "/v1/shutdown": {"post": _operation("shutdown", "Finish: drain, bounded, and write all down", _any("202"))},
        "/v1/events": {"get": _operation(
            "events", "Server-sent events: run_started, run_stopped, exchange, grant; then dropped or closed",
            {"200": {"description": "a stream", "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
            {"name": "run", "in": "query", "schema": {"type": "string"}, "description": "of one run only"},
        )},
    }  # fmt: skip


def _operation(
    name: str, summary: str, answers: Json, *parameters: Json, takes: type | None = None, is_optional: bool = False
) -> Json:
    operation: Json = {"operationId": name, "summary": summary, "responses": {**answers, "default": _refused()}}
    if parameters:
        operation["parameters"] = list(parameters)
    if takes is not None:
        content = {"application/json": {"schema": {"$ref": _REF.format(model=takes.__name__)}}}
        operation["requestBody"] = {"required": not is_optional, "content": content}
    return operation


def _ok(kind: type, status: str = "200", *, is_list: bool = False) -> Json:
    schema: Json = {"$ref": _REF.format(model=kind.__name__)}
    if is_list:
        schema = {"type": "array", "items": schema}
    return {status: {"description": "done", "content": {"application/json": {"schema": schema}}}}


def _empty(status: str) -> Json:
    return {status: {"description": "done"}}


def _any(status: str) -> Json:
    return {status: {"description": "under way", "content": {"application/json": {"schema": {"type": "object"}}}}}


def _refused() -> Json:
    content = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    return {"description": "refused: code is the name of a class of moat.api.errors", "content": content}


def _parameter(name: str, what: str, pattern: str) -> Json:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": what}


def _schemas() -> Json:
    taken: list[tuple[type, JsonSchemaMode]] = [(kind, "validation") for kind in _TAKEN]
    given: list[tuple[type, JsonSchemaMode]] = [(kind, "serialization") for kind in _GIVEN]
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (kind.__name__, mode, TypeAdapter(kind)) for kind, mode in taken + given
    ]
    _, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    found: Json = definitions["$defs"]
    for (model, name), pattern in _PATTERNS.items():
        found[model]["properties"][name]["pattern"] = pattern
    return {name: _readable(found[name]) for name in sorted(found)}


def _readable(schema: Any) -> Any:
    """Return a schema without prefixItems, which many tools do not read: what may stand anywhere is said instead."""
    if isinstance(schema, list):
        return [_readable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _readable(value) for name, value in schema.items() if name != "prefixItems"}
    if "prefixItems" in schema:
        kinds = {str(each): each for each in schema["prefixItems"]}
        plain["items"] = {"anyOf": list(kinds.values())}
    return plain
