"""What is there, for a browser and for programs: the index of all agents, or of one. Pure; everything is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape

from moat.routing.names import url_of
from moat.routing.table import Route

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui;max-width:40em;margin:3em auto;padding:0 1em}}code{{color:#555}}</style></head>
<body><h1>{title}</h1>{body}</body></html>
"""


def as_json(routes: Iterable[Route], port: int, scheme: str) -> str:
    """Return the routes as a JSON object: agent → run and addresses."""
    agents = {
        route.agent: {
            "run_id": route.run_id,
            "endpoints": {name: url_of(route.agent, name, port, scheme) for name in sorted(route.endpoints)},
            "published": {name: f"127.0.0.1:{number}" for name, number in sorted(route.published.items())},
        }
        for route in routes
    }
    return json.dumps({"agents": agents}, indent=2) + "\n"


def as_html(routes: Iterable[Route], port: int, scheme: str) -> str:
    """Return the routes as a page."""
    parts = [_section(route, port, scheme) for route in routes]
    return page("moat: what runs have opened", "".join(parts) or "<p>No run has opened a port.</p>")


def page(title: str, body: str) -> str:
    """Return a page. title is escaped, body is not."""
    return _PAGE.format(title=escape(title), body=body)


def problem(title: str, text: str, port: int) -> str:
    """Return a page that says what is wrong."""
    return page(title, f'<p>{escape(text)}</p><p><a href="http://localhost:{port}/">What there is</a></p>')


def _section(route: Route, port: int, scheme: str) -> str:
    items = []
    for name, inside in sorted(route.endpoints.items()):
        url = url_of(route.agent, name, port, scheme)
        at = f", published at 127.0.0.1:{route.published[name]}" if name in route.published else ""
        items.append(f'<li><a href="{escape(url)}">{escape(url)}</a> <code>port {inside}{at}</code></li>')
    return f"<h2>{escape(route.agent)}</h2><p><code>{escape(route.run_id)}</code></p><ul>{''.join(items)}</ul>"
