from __future__ import annotations

from dataclasses import asdict, replace

from moat.daemon import protocol
from moat.daemon.extras import AwsConfig, HostPort, McpServer, RoutedPort
from moat.daemon.protocol import DoorInfo, RegisterRequest, RegisterResponse
from moat.trace.values import decode


def test_what_is_secret_is_not_shown() -> None:
    shown = repr(
        [
            RegisterRequest("run_1", auth_token="s3cr3t"),
            RegisterResponse("run_1", "s3cr3t", 1, DoorInfo("/d", "s3cr3t")),
        ]
    )

    assert "s3cr3t" not in shown


def test_an_answer_crosses_and_comes_back_the_same() -> None:
    response = RegisterResponse("run_1", "t", 1, DoorInfo("/d", "n"))

    assert decode(RegisterResponse, asdict(response)) == response


def test_the_capabilities_are_told() -> None:
    assert "doors" in protocol.CAPABILITIES


def test_what_a_registration_asks_for_is_what_its_daemon_must_be_capable_of() -> None:
    plain = RegisterRequest("run_1")
    server = McpServer("linear", "https://mcp.example.com/mcp")
    ports = {"endpoints": (RoutedPort("web", 3000),), "host_ports": (HostPort(80),)}
    more = RegisterRequest("run_1", mcp_servers=(server,), **ports)  # type: ignore[arg-type] # each its own

    assert protocol.needed_capabilities(plain) == ()
    assert protocol.needed_capabilities(more) == ("extras", "routing", "host-ports")
    chosen = replace(more, endpoints=(RoutedPort("web", 3000, 13000),))
    assert "published" in protocol.needed_capabilities(chosen)
    limited = AwsConfig("arn:aws:iam::1:role/r", session_policy="{}")
    assert "session-policies" in protocol.needed_capabilities(RegisterRequest("run_1", aws_config=limited))
    assert "trace-bodies" in protocol.needed_capabilities(RegisterRequest("run_1", trace_bodies=True))
    assert set(protocol.needed_capabilities(more)) <= set(protocol.CAPABILITIES)
    assert "trace-bodies" in protocol.CAPABILITIES
    assert protocol.extras_of(more).mcp_servers == (server,)
