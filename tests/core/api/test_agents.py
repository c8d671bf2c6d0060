from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from moat.api.agents import Beside, Surroundings, began_at, instructions
from moat.api.runs import NetworkPolicy, NetworkRule

GETS = NetworkRule("allow", ("GET", "PUT"), "a.b", "/x/**")
AROUND = Surroundings("/home/moat", "/workspace", ("agent",), datetime(2030, 1, 1, tzinfo=UTC), "own", ("own",))


@pytest.mark.parametrize(
    ("around", "told", "untold"),
    [
        (AROUND, "every public host", "these hosts"),
        (replace(AROUND, policy=NetworkPolicy("strict", ("a.example",))), "these hosts: `a.example`", "public host"),
        (replace(AROUND, policy=NetworkPolicy("strict")), "these hosts: no other", "public host"),
        (replace(AROUND, policy=NetworkPolicy(rules=(NetworkRule("deny", (), "*"),))), "- `deny * *`", "strict"),
        (
            replace(AROUND, policy=NetworkPolicy("strict", (), (GETS,))),
            "the first that fits decides:\n  - `allow GET,PUT a.b/x/**`\n",
            "public host",
        ),
        (AROUND, "no private address.", "these rules"),
        (
            replace(AROUND, beside=Beside(branch="fix")),
            "a git worktree of the user's, on the branch `fix`",
            "changed for",
        ),
        (replace(AROUND, beside=Beside(shared=("/data",))), "and changed for good: `/data`.", "to be read only"),
        (replace(AROUND, beside=Beside(shown=("/docs",))), "to be read only: `/docs`.", "as well"),
        (replace(AROUND, beside=Beside(lasting=("/cache",))), "Kept for the next run here: `/cache`.", "not shown"),
        (replace(AROUND, beside=Beside(hides=True)), "Parts of `/workspace` are not shown", "Kept for"),
        (replace(AROUND, beside=Beside(services={"db": 5432})), "gone with it: `db at 127.0.0.1:5432`.", "machine"),
        (
            replace(AROUND, beside=Beside(host_ports=("host.moat.internal:1",))),
            "`host.moat.internal:1`.",
            "Services of",
        ),
        (replace(AROUND, beside=Beside(ports={"web": 3000})), "of 127.0.0.1: `3000 (web)`.", "Services of"),
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


@pytest.mark.parametrize(
    ("head", "began"),
    [
        (
            b'{"timestamp": "2030-01-01T10:00:00.5Z"}\n{"timestamp": "2030-01-01T11:00:00Z"}',
            datetime(2030, 1, 1, 10, 0, 0, 500_000, tzinfo=UTC),
        ),
        (b'{"x": 1}\n\xff{\n[]\n{"timestamp": "2030-01-01T11:00:00+01:00"}', datetime(2030, 1, 1, 10, tzinfo=UTC)),
        (b'{"timestamp": "soon"}\n{"timestamp": 5}\n{"timestamp": "0001-01-01T00:00:00+14:00"}', None),
        (b"[" * 200_000, None),
        (b"", None),
    ],
)
def test_a_transcript_began_when_its_first_line_with_a_time_says(head: bytes, began: datetime | None) -> None:
    assert began_at(head) == began


def test_the_time_may_stand_in_another_field() -> None:
    assert began_at(b'{"at": "2030-01-01T10:00:00Z"}', "at") == datetime(2030, 1, 1, 10, tzinfo=UTC)
