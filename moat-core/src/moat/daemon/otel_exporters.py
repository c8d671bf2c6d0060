"""Over what spans and metrics leave: HTTP or gRPC, as OTEL_EXPORTER_OTLP_PROTOCOL says, for each signal by itself too.

    http/protobuf (where nothing is said)   moat-core[otel]          grpc   moat-core[otel-grpc]

Everything else (endpoint, headers, certificate, compression, timeout) the SDK's exporters read from the environment
by themselves. What is not installed, or not known, is said once in the daemon's log, and nothing is sent.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

HTTP, GRPC = "http/protobuf", "grpc"
_VARIABLE = "OTEL_EXPORTER_OTLP_PROTOCOL"
_SDK = "opentelemetry.sdk"
_PACKAGES = {HTTP: "opentelemetry.exporter.otlp.proto.http", GRPC: "opentelemetry.exporter.otlp.proto.grpc"}
_EXTRAS = {HTTP: "moat-core[otel]", GRPC: "moat-core[otel-grpc]"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exporters:
    """What sends."""

    spans: SpanExporter
    metrics: MetricExporter


def exporters_of(env: Mapping[str, str]) -> Exporters | None:
    """Return what env asks for, None where that is not known or not installed; then the log says what to do."""
    chosen = {signal: _protocol(env, signal) for signal in ("TRACES", "METRICS")}
    for protocol in dict.fromkeys(chosen.values()):
        if protocol not in _PACKAGES:
            known = " and ".join(_PACKAGES)
            log.warning(f"{_VARIABLE} is none that moat speaks, {known}: nothing is sent", extra={"value": protocol})
            return None
        if not all(_is_there(name) for name in (_SDK, _PACKAGES[protocol])):
            extra = _EXTRAS[protocol]
            problem = f"OTEL_* names an endpoint, but {extra} is not installed: nothing is sent"
            log.warning(problem, extra={"protocol": protocol, "hint": f"run: pip install '{extra}'"})
            return None
    spans = importlib.import_module(f"{_PACKAGES[chosen['TRACES']]}.trace_exporter").OTLPSpanExporter()
    metrics = importlib.import_module(f"{_PACKAGES[chosen['METRICS']]}.metric_exporter").OTLPMetricExporter()
    return Exporters(spans, metrics)


def _protocol(env: Mapping[str, str], signal: str) -> str:
    own = env.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "").strip()
    return own or env.get(_VARIABLE, "").strip() or HTTP


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
