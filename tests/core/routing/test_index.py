from __future__ import annotations

import json

from moat.routing.index import as_html, as_json, problem
from moat.routing.table import Route

ROUTES = [Route("calm-otter", "run_1", {"web": 3000, "api": 4000})]


def test_the_index_leads_to_every_endpoint() -> None:
    page = as_html(ROUTES, 8080, "http")

    assert 'href="http://web.calm-otter.localhost:8080/"' in page
    assert 'href="http://api.calm-otter.localhost:8080/"' in page
    assert "run_1" in page


def test_programs_get_the_same_as_json() -> None:
    found = json.loads(as_json(ROUTES, 8080, "https"))

    assert found["agents"]["calm-otter"]["endpoints"]["web"] == "https://web.calm-otter.localhost:8080/"


def test_nothing_is_said_when_nothing_is_routed() -> None:
    assert "No run has opened a port" in as_html([], 8080, "http")
    assert json.loads(as_json([], 8080, "http")) == {"agents": {}}


def test_what_a_run_says_cannot_become_markup() -> None:
    page = problem("<b>", "the run says <script>", 8080) + as_html([Route("a", "<i>", {"w": 1})], 8080, "http")

    assert "<script>" not in page
    assert "<b>" not in page
    assert "<i>" not in page
