"""A collector that speaks OTLP over gRPC, in a process of its own: what comes is printed, an object a line.

    {"port": …}     {"kind": "traces" | "metrics", "authorization": …, "body": base64 of the request}

gRPC's threads and a test's forks do not go together, so nothing of it is in the test's own process.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]  # it has no stubs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

SERVICES = {
    "traces": ("opentelemetry.proto.collector.trace.v1.TraceService", traces.ExportTraceServiceResponse),
    "metrics": ("opentelemetry.proto.collector.metrics.v1.MetricsService", metrics.ExportMetricsServiceResponse),
}


def tell(news: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


def taking(kind: str, answer: Callable[[], Any]) -> Callable[[bytes, grpc.ServicerContext], Any]:
    def export(body: bytes, context: grpc.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        told = {"kind": kind, "authorization": metadata.get("authorization", "")}
        tell({**told, "body": base64.b64encode(body).decode()})
        return answer()

    return export


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    for kind, (name, answer) in SERVICES.items():
        export = grpc.unary_unary_rpc_method_handler(
            taking(kind, answer), response_serializer=lambda message: message.SerializeToString()
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": export}),))
    tell({"port": server.add_insecure_port("127.0.0.1:0")})
    server.start()
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
