from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from moat.api.agents import Surroundings, instructions
from moat.api.runs import NetworkPolicy, NetworkRule

AROUND = Surroundings("/home/moat", "/workspace", ("agent",), datetime(2030, 1, 1, tzinfo=UTC), "own", ("own",))


@pytest.mark.parametrize(
    ("around", "told", "untold"),
    [
        (AROUND, "every public host", "these hosts"),
        (replace(AROUND, policy=NetworkPolicy("strict", ("a.example",))), "these hosts: `a.example`", "public host"),
        (replace(AROUND, policy=NetworkPolicy("strict")), "these hosts: no other", "public host"),
        (replace(AROUND, policy=NetworkPolicy(rules=(NetworkRule("deny", (), "*"),))), "Rules of the user's", "strict"),
        (AROUND, "changed for good", "a copy"),
        (replace(AROUND, works_on_a_copy=True), "is a copy", "changed for good"),
        (replace(AROUND, grants=("own", "github")), "the services of `github` get", "`own`"),
        (AROUND, "placeholder", "get the user's credential"),
        (replace(AROUND, mcp={"notes": "http://x/mcp/notes"}), "MCP server `notes`: http://x/mcp/notes", "linear"),
    ],
)
def test_an_agent_is_told_what_is_enforced_and_nothing_else(around: Surroundings, told: str, untold: str) -> None:
    text = instructions(around)

    assert told in text
    assert untold not in text
