"""The Host that providers are tested with behaves like the one they run on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from moat.api import GrantFailed, Host, HttpRequest
from moat.config.settings import UpstreamSettings
from moat.host import RealHost
from moat.testing import FakeHost

NOWHERE = UpstreamSettings(None, {"a.test": "127.0.0.1:1"}, ("127.0.0.0/8",))


def real() -> Host:
    return RealHost(env={**os.environ, "MOAT_NO_PROMPT": "1"}, upstream=NOWHERE, say=lambda text: None)


def fake() -> Host:
    return FakeHost()


@pytest.fixture(params=[real, fake], ids=["real", "fake"])
def host(request: pytest.FixtureRequest) -> Host:
    made: Host = request.param()
    return made


async def test_a_program_that_is_not_there_is_none(host: Host) -> None:
    assert await host.run("no-such-program-anywhere") is None


def test_a_file_that_is_not_there_is_none(host: Host, tmp_path: Path) -> None:
    assert host.read(tmp_path / "absent") is None


async def test_where_nobody_can_be_asked_a_question_fails_and_a_confirmation_is_no(host: Host) -> None:
    with pytest.raises(GrantFailed):
        await host.ask("token")
    assert not await host.confirm("sure?")


async def test_a_service_that_cannot_be_reached_fails(host: Host) -> None:
    with pytest.raises(GrantFailed, match="cannot be reached"):
        await host.fetch(HttpRequest("GET", "https://a.test/"))


def test_credentials_are_checked_unless_the_user_says_otherwise(host: Host) -> None:
    assert host.validate
    assert dict(host.options) == {}


def test_the_time_has_a_zone(host: Host) -> None:
    assert host.now().tzinfo is not None


async def test_both_answer_what_a_program_printed() -> None:
    result = await real().run(sys.executable, "-c", "print('s3cr3t')")

    assert result is not None
    assert (result.exit_code, result.stdout) == (0, "s3cr3t\n")
    assert "s3cr3t" not in repr(result)
