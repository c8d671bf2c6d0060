"""Spans and metrics for OpenTelemetry, where the user's standard OTEL_* variables name a place for them. Else nothing.

    run ─ a span ─┬─ request ─ a span, when it has ended          OTLP, in threads of the SDK's own
                  └─ …             └─ counters and a histogram

Needs an extra of moat's: `otel_exporters` says which, and over what it goes. Nothing is sent unless an endpoint is
named, and never to whoever makes moat. Metrics have no label that grows with what runs do; spans say host, path without
query, and grants' names, and hold no secret.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import moat
from moat.api.runs import ExchangeRecord, RunInfo
from moat.daemon.otel_exporters import exporters_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
LIMIT_S = 2.0

log = logging.getLogger(__name__)


def telemetry(env: Mapping[str, str]) -> Telemetry | None:
    """Return what sends spans and metrics, None where nobody asked for them or what that takes is missing."""
    if not any(env.get(name) for name in _ENDPOINTS) or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    exporters = exporters_of(env)
    if exporters is None:
        return None
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if env.get("OTEL_SERVICE_NAME") else {"service.name": "moat"}
    resource = Resource.create({**named, "service.version": moat.__version__})
    tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracing.add_span_processor(BatchSpanProcessor(exporters.spans))
    reader = PeriodicExportingMetricReader(exporters.metrics)
    return Telemetry(tracing, MeterProvider([reader], resource=resource, shutdown_on_exit=False))


class Telemetry:
    """Watches runs and their exchanges for OpenTelemetry."""

    watches_exchanges = True

    def __init__(self, tracing: TracerProvider, metering: MeterProvider) -> None:
        self._providers = (tracing, metering)
        self._tracer = tracing.get_tracer("moat", moat.__version__)
        meter = metering.get_meter("moat", moat.__version__)
        self._requests = meter.create_counter("moat.requests", "{request}", "Requests of runs")
        self._seconds = meter.create_histogram("moat.request.duration", "s", "How long requests of runs took")
        self._live = meter.create_up_down_counter("moat.runs", "{run}", "Live runs")
        self._runs: dict[str, Span] = {}

    def run_started(self, run: RunInfo) -> None:
        """Begin a run's span."""
        told: dict[str, AttributeValue] = {
            "moat.run.id": run.run_id, "moat.run.name": run.name, "moat.runtime": run.runtime,
            "moat.policy": run.policy, "moat.grants": run.grants,
        }  # fmt: skip
        self._runs[run.run_id] = self._tracer.start_span(
            "run", attributes=told, start_time=_nanoseconds(run.started_at)
        )
        self._live.add(1)

    def run_stopped(self, run: RunInfo, exit_code: int) -> None:
        """End a run's span."""
        if (span := self._runs.pop(run.run_id, None)) is not None:
            span.set_attribute("process.exit.code", exit_code)
            span.end()
            self._live.add(-1)

    def exchange_done(self, run_id: str, exchange: ExchangeRecord) -> None:
        """Tell of one exchange, under its run's span."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        began = _nanoseconds(exchange.at)
        span = self._tracer.start_span(
            exchange.method or "HTTP", self._context(run_id), SpanKind.CLIENT, _attributes(run_id, exchange),
            start_time=began,
        )  # fmt: skip
        if exchange.error:
            span.set_status(Status(StatusCode.ERROR, exchange.reason))
        span.end(None if began is None else began + int(exchange.duration_ms * 1_000_000))
        told = {"outcome": exchange.outcome, "code": f"{exchange.status // 100}xx" if exchange.status else "none"}
        self._requests.add(1, told)
        self._seconds.record(exchange.duration_ms / 1_000, told)

    def close(self, limit_s: float = LIMIT_S) -> None:
        """Send what waits, for a moment: the daemon ends no later for a place that does not answer."""
        ending = threading.Thread(target=self._close, daemon=True)
        ending.start()
        ending.join(limit_s)

    def _close(self) -> None:
        for span in self._runs.values():
            span.end()
        for provider in self._providers:
            provider.shutdown()

    def _context(self, run_id: str) -> Context | None:
        from opentelemetry.trace import set_span_in_context

        span = self._runs.get(run_id)
        return None if span is None else set_span_in_context(span)


def _attributes(run_id: str, exchange: ExchangeRecord) -> dict[str, AttributeValue]:
    """Return an exchange under OpenTelemetry's names for HTTP and language models, and ours."""
    told: dict[str, AttributeValue] = {
        "http.request.method": exchange.method,
        "url.scheme": exchange.scheme,
        "url.path": exchange.path,
        "server.address": exchange.host,
        "server.port": exchange.port,
        "http.response.status_code": exchange.status,
        "http.request.body.size": exchange.request_bytes,
        "http.response.body.size": exchange.response_bytes,
        "error.type": exchange.error,
        "gen_ai.response.model": exchange.model,
        "gen_ai.usage.input_tokens": exchange.input_tokens,
        "gen_ai.usage.output_tokens": exchange.output_tokens,
        "moat.run.id": run_id,
        "moat.request.id": exchange.id,
        "moat.outcome": exchange.outcome,
        "moat.rule": exchange.rule,
        "moat.grants": exchange.grants,
    }
    return {name: value for name, value in told.items() if value not in ("", 0, ())}


def _nanoseconds(at: str) -> int | None:
    """Return an ISO time as the SDK wants it, None for one that is none: it then takes now."""
    try:
        return int(datetime.fromisoformat(at).timestamp() * 1_000_000_000)
    except ValueError:
        return None
