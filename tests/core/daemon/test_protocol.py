from __future__ import annotations

from dataclasses import asdict

from moat.daemon import protocol
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
