"""Where the host leaves nothing better, the gate is the first program inside: the same siege, and the gate itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from support.installation import USER
from support.world import HOST_ADDRESSES, World

from hostile.conftest import SECRET
from hostile.sandbox import BUBBLEWRAP, with_programs
from hostile.test_no_way_out import LOOPBACK, NAMES, QUEUE, REFUSED, RESOLVERS, Report

pytestmark = pytest.mark.bubblewrap
HARMLESS = ("abstract", "descriptors", "first", "looked_at", "processes", "rights", "view", "others", "udp")


@pytest.fixture(params=["", USER], ids=["as root", f"as {USER}"], scope="module")
def report(request: pytest.FixtureRequest, world: World) -> Iterator[Report]:
    """Run the program beside the gate; its own key is a mark, and nothing may leave."""
    with world.installation(str(request.param), MOAT_BUBBLEWRAP_GATE="inside") as made:
        made.ok("proxy", "start")
        since = time.time()
        made.grant("github", SECRET)
        workspace = with_programs(made)
        ports = [[address, 22] for address in ("127.0.0.1", *HOST_ADDRESSES)]
        made.file("work/targets.json", json.dumps({
            "tcp": ports, "udp": ports, "names": NAMES, "resolvers": RESOLVERS, "own": "/workspace/hostile",
            "queue": QUEUE,
            "unix": [str(made.home / ".moat" / "daemon" / "daemon.sock")], "marks": [SECRET[::-1]], "since": since,
            "door": [19080],
        }))  # fmt: skip
        world.internet.forget()
        argv = ["python3", "/workspace/hostile/inside/main.py", "/workspace/targets.json"]
        told = made.ok("run", workspace, "--runtime", BUBBLEWRAP.runtime, "--grant", "github", "--policy", "strict",
                       "--", *argv, timeout_s=110)  # fmt: skip
        assert world.internet.packets == []
        yield json.loads(told)


def test_nothing_gets_out_or_is_gained(report: Report) -> None:
    gained = {
        group: [
            name for name, outcome in outcomes.items() if outcome.startswith("done") and not name.startswith(LOOPBACK)
        ]
        for group, outcomes in report.items()
        if group not in HARMLESS
    }

    assert {group: names for group, names in gained.items() if names} == {}
    assert {text for group in ("calls", "compat", "terminal") for text in report[group].values()} <= REFUSED


def test_the_gate_cannot_be_traced_read_or_robbed(report: Report) -> None:
    gate = next(
        pid for pid, command in report["processes"].items() if "gate.py" in command and not command.endswith("1")
    )
    gate = "2" if gate == "1" else gate
    touched = {name: outcome for name, outcome in report["others"].items() if name.endswith(f" {gate}")}

    assert touched.pop(f"descriptors of {gate}").startswith(("EACCES", "done"))  # their numbers, not what they are
    assert {name for name, outcome in touched.items() if outcome.startswith("done")} == set()
    assert [name for name in report["first"] if name.startswith(f"{gate} ")] == []


def test_the_gates_conversation_with_its_launcher_cannot_be_joined(report: Report) -> None:
    assert [name for name, link in report["first"].items() if name.startswith("1 ") and link.startswith("pipe:")] == []
