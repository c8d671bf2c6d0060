"""A real daemon tells a real collector of a real run, over gRPC: spans and metrics, with the user's own headers."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.installation import installation
from support.places import sandboxes_work

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not sandboxes_work(), reason="bubblewrap is not installed or may not make sandboxes here"),
]
ASK = ("curl", "-sS", "--max-time", "60", "http://a.example/path?secret=1")


@contextmanager
def collecting() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    argv = [sys.executable, "-m", "support.otlp_program"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["port"], process
        finally:
            process.kill()


def received(process: subprocess.Popen[str]) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """Return spans and metrics by name, and the authorizations, of all that came until the daemon had ended."""
    out, _ = process.communicate(timeout=60)
    spans: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    told = [json.loads(line) for line in out.splitlines()]
    for each in told:
        body = base64.b64decode(each["body"])
        if each["kind"] == "traces":
            for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans |= {span.name: span for scope in part.scope_spans for span in scope.spans}
        else:
            for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                metrics |= {metric.name: metric for scope in part.scope_metrics for metric in scope.metrics}
    return spans, metrics, {each["authorization"] for each in told}


def test_a_run_is_told_over_grpc() -> None:
    with collecting() as (port, collector):
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=of-the-collector",
        }
        with installation(**env) as moat:
            work = moat.file("work/.made", "").parent
            moat.ok("run", work, "--runtime", "bubblewrap", "--policy", "strict", "--name", "told", "--", *ASK)
            moat.ok("proxy", "stop")
        spans, metrics, authorizations = received(collector)

    run, request = spans["run"], spans["GET"]
    assert request.parent_span_id == run.span_id
    attributes = {each.key: each.value for each in request.attributes}
    assert attributes["server.address"].string_value == "a.example"
    assert attributes["moat.outcome"].string_value == "denied"
    assert "secret" not in str(request)
    assert metrics.keys() >= {"moat.requests", "moat.request.duration", "moat.runs"}
    assert authorizations == {"of-the-collector"}


def test_a_collector_that_is_not_there_keeps_nobody_waiting() -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with installation(**env) as moat:
        work = moat.file("work/.made", "").parent

        moat.ok("run", work, "--runtime", "bubblewrap", "--", "true")

        moat.ok("proxy", "stop")
