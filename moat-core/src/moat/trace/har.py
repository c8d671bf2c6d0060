"""A trace as an HTTP Archive 1.2, which a browser's developer tools open. Pure.

http://www.softwareishard.com/blog/har-12-spec/ says what is in one. What a trace does not have (values in a query, and
headers and bodies unless they were asked for) is empty; what an archive has no place for is under `_moat`, as the
format lets programs do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, TypeAlias

from moat.api.runs import ExchangeRecord, Fields, RunInfo

Json: TypeAlias = dict[str, Any]

_VERSIONS = {
    "http/1.0": "HTTP/1.0",
    "http/1.1": "HTTP/1.1",
    "h2": "h2",
    "websocket": "HTTP/1.1",
    "upgraded": "HTTP/1.1",
}
_USUAL_PORTS = {"https": 443, "http": 80}
_PAGE = "run"
_SHOWN = ("request_headers", "response_headers", "request_body", "response_body")


def har(run: RunInfo, exchanges: Iterable[ExchangeRecord], version: str) -> Json:
    """Return the archive of a run. version: of moat. Names that were kept in by DNS are no requests, and left out."""
    entries = [_entry(each) for each in exchanges if each.via != "dns"]
    page = {"startedDateTime": run.started_at, "id": _PAGE, "title": f"{run.name} ({run.run_id})", "pageTimings": {}}
    creator = {"name": "moat", "version": version}
    return {"log": {"version": "1.2", "creator": creator, "pages": [page], "entries": entries}}


def url_of(exchange: ExchangeRecord) -> str:
    """Return where a request went, without its query."""
    host = f"[{exchange.host}]" if ":" in exchange.host else exchange.host
    port = "" if exchange.port == _USUAL_PORTS.get(exchange.scheme) else f":{exchange.port}"
    return f"{exchange.scheme}://{host}{port}{exchange.path}"


def _entry(exchange: ExchangeRecord) -> Json:
    waited = min(exchange.first_byte_ms or exchange.duration_ms, exchange.duration_ms)
    timings = {"blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": 0, "wait": waited,
               "receive": exchange.duration_ms - waited}  # fmt: skip
    entry = {
        "pageref": _PAGE,
        "startedDateTime": exchange.at,
        "time": exchange.duration_ms,
        "request": _request(exchange),
        "response": _response(exchange),
        "cache": {},
        "timings": timings,
        "_moat": {name: value for name, value in asdict(exchange).items() if name not in _SHOWN},
    }
    return entry | ({"comment": exchange.reason} if exchange.reason else {})


def _request(exchange: ExchangeRecord) -> Json:
    return {
        "method": exchange.method or "GET",
        "url": url_of(exchange),
        "httpVersion": _VERSIONS.get(exchange.protocol, ""),
        "cookies": [],
        "headers": _headers(exchange.request_headers),
        "queryString": [{"name": name, "value": ""} for name in exchange.query_keys],
        "headersSize": -1,
        "bodySize": exchange.request_bytes,
    } | _posted(exchange)


def _response(exchange: ExchangeRecord) -> Json:
    response = {
        "status": exchange.status,
        "statusText": _phrase(exchange.status),
        "httpVersion": _VERSIONS.get(exchange.protocol, ""),
        "cookies": [],
        "headers": _headers(exchange.response_headers),
        "content": {"size": exchange.response_bytes, "mimeType": _kind(exchange.response_headers)}
        | ({"text": exchange.response_body} if exchange.response_body else {}),
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": exchange.response_bytes,
    }
    return response | ({"_error": exchange.reason} if exchange.error else {})  # as developer tools name it


def _headers(fields: Fields) -> list[Json]:
    return [{"name": name, "value": value} for name, value in fields]


def _kind(fields: Fields) -> str:
    return next((value for name, value in fields if name.lower() == "content-type"), "x-unknown")


def _posted(exchange: ExchangeRecord) -> Json:
    if not exchange.request_body:
        return {}
    return {"postData": {"mimeType": _kind(exchange.request_headers), "text": exchange.request_body}}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
