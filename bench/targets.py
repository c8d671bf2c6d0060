"""What the proxy must hold, as ratios within one run on one machine. over: a peer, or "direct" for nothing between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Medians = Mapping[tuple[str, str, str], float]  # (scenario, figure, peer)


@dataclass(frozen=True, slots=True)
class Target:
    """moat's figure over a peer's. at_most or at_least is 0 where it is no limit."""

    scenario: str
    figure: str
    over: str
    at_most: float = 0.0
    at_least: float = 0.0

    @property
    def limit(self) -> str:
        """The limit as people write it."""
        return f"≤ {self.at_most:g}" if self.at_most else f"≥ {self.at_least:g}"

    def ratio(self, medians: Medians) -> float | None:
        """Return moat over the peer, or None where one of them was not measured."""
        ours = medians.get((self.scenario, self.figure, "moat"))
        theirs = medians.get((self.scenario, self.figure, self.over))
        return None if ours is None or not theirs else ours / theirs

    def holds(self, ratio: float) -> bool:
        """Whether ratio is within the limit."""
        return ratio <= self.at_most if self.at_most else ratio >= self.at_least


TARGETS = (
    Target("keep-alive c=64", "cpu_us", "nginx", at_most=1.6),
    Target("keep-alive c=64", "cpu_us", "squid", at_most=0.6),
    Target("keep-alive c=64", "cpu_us", "mitmproxy", at_most=0.1),
    Target("keep-alive c=64", "per_s", "nginx", at_least=0.65),
    Target("keep-alive c=64", "per_s", "squid", at_least=2),
    Target("keep-alive c=64", "per_s", "mitmproxy", at_least=15),
    Target("cold c=8", "cpu_us", "nginx", at_most=1.6),
    Target("cold c=8", "cpu_us", "squid", at_most=0.9),
    Target("cold c=8", "cpu_us", "mitmproxy", at_most=0.15),
    Target("download", "mb_per_s", "nginx", at_least=0.9),
    Target("download with credential", "mb_per_s", "nginx", at_least=0.7),
    Target("events 10", "p50_us", "nginx", at_most=1.5),
    Target("events 1000", "p50_us", "nginx", at_most=1.5),
    Target("memory", "busy_mb", "nginx", at_most=1.5),
    Target("growth", "cpu_us", "moat (1,000 runs, 1,000 rules)", at_least=0.9),
    Target("growth", "cold_cpu_us", "moat (1,000 runs, 1,000 rules)", at_least=0.9),
    Target("trace + audit", "cpu_us", "moat, unrecorded", at_most=1.1),
    Target("far", "p50_ms", "direct", at_most=1.0),
)
