from __future__ import annotations

import logging

import pytest
from moat.daemon import otel_exporters as module
from moat.daemon.otel_exporters import GRPC, HTTP, exporters_of

PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
TRACES, METRICS = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"


@pytest.mark.parametrize(
    "env", [{}, {PROTOCOL: ""}, {PROTOCOL: " http/protobuf "}, {PROTOCOL: GRPC, TRACES: HTTP, METRICS: HTTP}]
)
def test_http_is_spoken_where_nothing_else_is_said(env: dict[str, str]) -> None:
    exporters = exporters_of(env)

    assert exporters is not None
    assert type(exporters.spans).__module__.startswith("opentelemetry.exporter.otlp.proto.http")
    assert type(exporters.metrics).__module__.startswith("opentelemetry.exporter.otlp.proto.http")
    exporters.spans.shutdown()
    exporters.metrics.shutdown()


@pytest.mark.parametrize("env", [{PROTOCOL: "http/json"}, {TRACES: "carrier-pigeon"}])
def test_a_protocol_that_is_not_spoken_is_told(env: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert exporters_of(env) is None

    assert "http/protobuf and grpc" in caplog.text


@pytest.mark.parametrize(
    ("env", "missing", "extra"),
    [
        ({}, HTTP, "moat-core[otel]"),
        ({PROTOCOL: GRPC}, GRPC, "moat-core[otel-grpc]"),
        ({METRICS: GRPC}, GRPC, "moat-core[otel-grpc]"),
    ],
)
def test_an_extra_that_is_not_installed_is_told_with_what_to_type(
    env: dict[str, str], missing: str, extra: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(module._PACKAGES, missing, "moat_has_no_such_package.grpc")

    with caplog.at_level(logging.WARNING):
        assert exporters_of(env) is None

    (record,) = caplog.records
    assert f"{extra} is not installed" in record.message
    assert record.__dict__["hint"] == f"run: pip install '{extra}'"
