"""Whether a request costs more the more runs and rules there are: one run with one rule against a thousand of each."""

from __future__ import annotations

import time
from collections import defaultdict

from bench import peers
from bench.ground import Ground
from bench.scenarios import Size, scenarios
from bench.table import Results

MANY = 1000


def measure(ground: Ground, size: Size) -> Results:
    """Return the figures of both, in turns."""
    both = [peers.moat(ground), peers.moat(ground, name="moat (1,000 runs, 1,000 rules)", runs=MANY, rules=MANY)]
    kept, cold = scenarios(size)["keep-alive c=16"], scenarios(size)["cold c=8"]
    results: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for _ in range(size.rounds):
        for peer in both:
            results["growth", "cpu_us", peer.name].append(kept(peer, ground)["cpu_us"])
            results["growth", "cold_cpu_us", peer.name].append(cold(peer, ground)["cpu_us"])
            time.sleep(size.settle_s)
    return results
