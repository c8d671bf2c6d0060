"""The archive of a real run opens in a real browser's developer tools, and has there what the trace has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.devtools import CHROMIUM, developer_tools
from support.places import Place, sandboxes_work
from support.services import Services

from e2e.conftest import make_place

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed"),
    pytest.mark.skipif(not sandboxes_work(), reason="bubblewrap is not installed"),
]
ASK = """
curl -sS https://api.github.com/user?secret=1
curl -sS -d '{"a": 1}' -H 'Content-Type: application/json' https://api.github.com/widgets
curl -sS https://other.example.org/
true
"""


@pytest.fixture
def place(services: Services, inside: Path) -> Iterator[Place]:
    with make_place("bubblewrap", "", services, inside) as made:
        yield made


@pytest.mark.timeout(300)  # a browser on a busy machine
async def test_an_archive_opens_in_the_tab_network(place: Place, tmp_path: Path) -> None:
    archive = tmp_path / "run.har"
    place.ok("sh", "-c", ASK, flags=("--name", "shown", "--policy", "strict", "--trace-bodies"))
    place.installation.ok("trace", "shown", "--har", archive)

    async with developer_tools() as tools:
        await tools.open(json.dumps({"log": {"entries": [{"request": {}}]}}))
        nothing = await tools.rows(0)
        await tools.open(archive.read_text())
        rows = await tools.rows(3)
        drawn = await tools.table("widgets")
        content = await tools.content(1)

    assert nothing == []
    user, widgets, denied = rows
    assert (user["method"], user["url"], user["status"]) == ("GET", "https://api.github.com/user", 200)
    assert (widgets["method"], widgets["url"], widgets["text"]) == ("POST", "https://api.github.com/widgets", "OK")
    assert user["duration"] > 0
    assert widgets["sent"]["Content-Type"] == "application/json"
    assert json.loads(content) == {"ok": True, "path": "/widgets"}
    assert (denied["url"], denied["status"]) == ("https://other.example.org", 403)
    assert "user" in drawn
    assert "403" in drawn
    assert place.secret not in archive.read_text() + drawn + content
