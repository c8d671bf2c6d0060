"""Run the bench: python -m bench [--quick] [--only moat,nginx | --startup] [--write FILE]

Peers are measured in turns, in another order each round, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from bench import far, growth, recording, startup
from bench.ground import Ground
from bench.peers import ALL, Peer
from bench.scenarios import FULL, QUICK, LoadFailed, Scenario, Size, scenarios
from bench.table import Results, figures, medians, ratios
from bench.tools import Missing, prepare, say


def main() -> int:
    """Measure, print, and return 0 unless something could not be measured at all."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--quick", action="store_true", help="one short round, under a minute")
    parser.add_argument("--only", default="", help="names of peers, by comma")
    parser.add_argument("--startup", action="store_true", help="only what a start of `moat run` costs")
    parser.add_argument("--write", type=Path, help="also write the tables here")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    try:
        text = startup.report(size) if options.startup else _all(size, options.only)
    except Missing as problem:
        say(f"error: {problem}")
        return 1
    print(text)
    if options.write:
        options.write.write_text(text)
    return 0


def _all(size: Size, only: str) -> str:
    folder = Path(tempfile.mkdtemp(prefix="moat-bench-"))
    ground = Ground(folder)
    try:
        prepare()
        ground.start()
        wanted = [start for start in ALL if not only or start.__name__ in only.split(",")]
        peers = [peer for start in wanted if (peer := start(ground)) is not None]
        results = {**measure(peers, ground, size), **growth.measure(ground, size)}
        results |= {**recording.measure(ground, size), **far.measure(size)}
    finally:
        ground.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return f"{report(results, size)}\n{startup.report(size)}"


def measure(peers: list[Peer], ground: Ground, size: Size) -> Results:
    """Return every figure of every peer, one value a round."""
    results: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for number in range(size.rounds):
        for name, scenario in scenarios(size).items():
            if name == "memory" and number:
                continue  # only while the peers are fresh
            turn = number % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                say(f"round {number + 1}: {name}, {peer.name}")
                if size is QUICK and peer.is_slow and name in ("memory", "events 1000"):
                    continue
                for figure, value in _attempt(scenario, peer, ground).items():
                    results[name, figure, peer.name].append(value)
                time.sleep(size.settle_s)
    return results


def _attempt(scenario: Scenario, peer: Peer, ground: Ground) -> Mapping[str, float]:
    try:
        return scenario(peer, ground)
    except LoadFailed as problem:
        say(f"  no figures: {problem}")
        return {}


def report(results: Results, size: Size) -> str:
    """Return what is printed."""
    peers = list(dict.fromkeys(peer for _, _, peer in results))
    machine = f"{os.cpu_count()} CPUs, {_python()}, kernel {platform.release()}"
    head = f"{size.name}: {size.rounds} rounds of {size.load_s:g} s; {machine}"
    return f"{head}\n\n{figures(results, peers)}\n\n{ratios(medians(results))}\n"


def _python() -> str:
    """Name the interpreter. Distributions build theirs with a profile, others seldom, and it decides a third of the cost."""
    return f"Python {platform.python_version()} {'of' if sys.base_prefix == '/usr' else 'not of'} the distribution"


if __name__ == "__main__":
    sys.exit(main())
