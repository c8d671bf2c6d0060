"""What the real SDK sends is read by a receiver with OpenTelemetry's own messages."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from moat.api.runs import ExchangeRecord
from moat.daemon.otel import telemetry
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from core.daemon.making import RUN_ID, an_info

EXCHANGE = ExchangeRecord(
    RUN_ID, "2026-01-01T00:00:01.500+00:00", "connect", "GET", "https", "a.example", 443, "/user", 200, "forwarded",
    duration_ms=250.0, id="req_1", rule="permissive", grants=("github",),
)  # fmt: skip


@dataclass
class Receiver:
    """What was sent, by path."""

    url: str = ""
    traces: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(body))
        elif path == "/v1/metrics":
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))

    @property
    def spans(self) -> dict[str, Any]:
        """The spans by name."""
        every = (span for each in self.traces for part in each.resource_spans for scope in part.scope_spans
                 for span in scope.spans)  # fmt: skip
        return {span.name: span for span in every}


@contextmanager
def receiving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        try:
            yield receiver
        finally:
            server.shutdown()
            serving.join()


def values(attributes: Any) -> dict[str, str]:
    return {each.key: str(each.value).strip() for each in attributes}


def test_runs_and_their_requests_are_spans_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(monkeypatch) as receiver:
        sending = telemetry({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url})
        assert sending is not None
        sending.run_started(an_info())
        sending.exchange_done(RUN_ID, EXCHANGE)
        denied = replace(EXCHANGE, method="POST", outcome="denied", status=403, error="policy", reason="no", at="")
        sending.exchange_done(RUN_ID, denied)
        sending.run_stopped(an_info(), 3)
        sending.close(30)

    spans = receiver.spans
    run, got, kept_in = spans["run"], spans["GET"], spans["POST"]
    assert got.parent_span_id == kept_in.parent_span_id == run.span_id
    assert got.end_time_unix_nano - got.start_time_unix_nano == 250_000_000
    assert 'string_value: "a.example"' in values(got.attributes)["server.address"]
    assert "github" in values(got.attributes)["moat.grants"]
    assert "error.type" not in values(got.attributes)
    assert (kept_in.status.code, kept_in.status.message) == (2, "no")
    assert "int_value: 3" in values(run.attributes)["process.exit.code"]
    (resource,) = (each.resource for each in receiver.traces[0].resource_spans)
    assert 'string_value: "moat"' in values(resource.attributes)["service.name"]
    found = {metric.name: metric for part in receiver.metrics[-1].resource_metrics for scope in part.scope_metrics
             for metric in scope.metrics}  # fmt: skip
    assert found.keys() == {"moat.requests", "moat.request.duration", "moat.runs"}
    labels = {key for point in found["moat.requests"].sum.data_points for key in values(point.attributes)}
    assert labels == {"outcome", "code"}


@pytest.mark.parametrize(
    "env", [{}, {"OTEL_SERVICE_NAME": "x"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}]
)
def test_nothing_is_sent_unless_somebody_names_a_place(env: dict[str, str]) -> None:
    assert telemetry(env) is None


def test_a_place_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        sending = telemetry(os.environ)
        assert sending is not None
        sending.run_started(an_info())

        sending.close(0.0)

        assert [each.name for each in threading.enumerate() if "_close" in each.name] != []
        for each in threading.enumerate():
            if "_close" in each.name:
                each.join(30)
