"""What the exchanges of a trace come to: totals per host, and per language model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from moat.api.runs import ExchangeRecord


@dataclass(frozen=True, slots=True)
class HostTotal:
    """One host. failed: those without a whole answer, refused ones too. Times are of those that were forwarded."""

    host: str
    requests: int
    denied: int
    failed: int
    request_bytes: int
    response_bytes: int
    median_ms: float
    slowest_ms: float
    grants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelTotal:
    """One model. cost_usd: an estimate; 0 where a price is not known."""

    model: str
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A trace. missing: exchanges that it should have and does not. hosts: the busiest first."""

    total: HostTotal
    hosts: tuple[HostTotal, ...] = ()
    models: tuple[ModelTotal, ...] = ()
    missing: int = field(default=0)


def summary(exchanges: Iterable[ExchangeRecord], missing: int = 0) -> Summary:
    """Return the totals of exchanges."""
    everything = list(exchanges)
    by_host: dict[str, list[ExchangeRecord]] = {}
    by_model: dict[str, list[ExchangeRecord]] = {}
    for each in everything:
        by_host.setdefault(each.host, []).append(each)
        if each.model:
            by_model.setdefault(each.model, []).append(each)
    hosts = sorted((_host_total(*pair) for pair in by_host.items()), key=lambda total: (-total.requests, total.host))
    models = tuple(_model_total(*pair) for pair in sorted(by_model.items()))
    return Summary(_host_total("total", everything), tuple(hosts), models, missing)


def _host_total(host: str, exchanges: Sequence[ExchangeRecord]) -> HostTotal:
    times = [each.duration_ms for each in exchanges if each.outcome == "forwarded"]
    return HostTotal(
        host,
        len(exchanges),
        sum(each.outcome == "denied" for each in exchanges),
        sum(bool(each.error) and each.outcome != "denied" for each in exchanges),
        sum(each.request_bytes for each in exchanges),
        sum(each.response_bytes for each in exchanges),
        round(median(times), 3) if times else 0.0,
        max(times, default=0.0),
        tuple(sorted({grant for each in exchanges for grant in each.grants})),
    )


def _model_total(model: str, exchanges: Sequence[ExchangeRecord]) -> ModelTotal:
    return ModelTotal(
        model,
        len(exchanges),
        sum(each.input_tokens for each in exchanges),
        sum(each.cached_tokens for each in exchanges),
        sum(each.output_tokens for each in exchanges),
        round(sum(each.cost_usd for each in exchanges), 6),
    )
