from __future__ import annotations

from pathlib import Path

from moat.api.runtimes import DoorTicket, Runtime, Sandbox


def test_a_ticket_shows_neither_nonce_nor_token() -> None:
    ticket = DoorTicket("run_000000000000", Path("/m"), "s3cr3t-nonce", "http://moat:s3cr3t@127.0.0.1:1")

    assert "s3cr3t" not in repr(ticket)


def test_a_runtime_is_two_methods_and_a_sandbox_four() -> None:
    assert Runtime.__abstractmethods__ == {"readiness", "launch"}
    assert Sandbox.__abstractmethods__ == {"wait", "signal", "resize", "close"}


def test_a_runtime_is_sealed_unless_it_says_otherwise() -> None:
    assert Runtime.sealed
    assert not Runtime.needs_image
