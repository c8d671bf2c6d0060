"""What trace and audit cost a request: moat against the same moat without them, in turns."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace

from bench import peers
from bench.ground import Ground
from bench.scenarios import Size, scenarios
from bench.table import Results

TURNS = 12  # for each round of the rest, and short: a few per cent are to be told from what else the machine does
TURN_S = 1.0


def measure(ground: Ground, size: Size) -> Results:
    """Return the figures of both. Each goes first in every other turn."""
    both = [peers.moat(ground), peers.moat(ground, name="moat, unrecorded", is_recorded=False)]
    results: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    scenario = scenarios(replace(size, load_s=min(size.load_s, TURN_S)))["keep-alive c=16"]
    for turn in range(size.rounds * TURNS):
        for peer in both[:: -1 if turn % 2 else 1]:
            results["trace + audit", "cpu_us", peer.name].append(scenario(peer, ground)["cpu_us"])
            time.sleep(size.settle_s)
    return results
