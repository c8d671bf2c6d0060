from __future__ import annotations

from pathlib import Path

import pytest
from moat.api import CommandResult, GrantFailed, Host, HttpRequest, HttpResponse
from moat.testing import FakeHost

REQUEST = HttpRequest("GET", "https://a/")


def test_it_is_a_host() -> None:
    host: Host = FakeHost()

    assert host.now().tzinfo is not None


async def test_it_answers_what_the_test_set_and_keeps_what_it_was_asked() -> None:
    result = CommandResult(0, "out", "")
    host = FakeHost(
        answers=["yes"],
        confirms=[True],
        files={Path("/f"): b"x"},
        commands={("gh", "auth"): result},
        responses={"https://a/": 204},
    )

    assert await host.ask("q") == "yes"
    assert await host.confirm("sure?")
    assert host.read(Path("/f")) == b"x"
    assert await host.run("gh", "auth") is result
    assert (await host.fetch(REQUEST)).status == 204
    host.say("done")
    assert (host.asked, host.ran, host.fetched, host.said) == (["q", "sure?"], [("gh", "auth")], [REQUEST], ["done"])


async def test_what_was_not_set_is_absent_as_on_a_bare_machine() -> None:
    host = FakeHost()

    assert host.read(Path("/f")) is None
    assert await host.run("gh") is None
    assert not await host.confirm("sure?")
    for attempt in (host.ask("q"), host.fetch(REQUEST)):
        with pytest.raises(GrantFailed):
            await attempt


async def test_an_answer_may_be_a_response_a_function_or_an_exception() -> None:
    response = HttpResponse(201, {}, b"")

    assert await FakeHost(responses={"https://a/": response}).fetch(REQUEST) is response
    assert await FakeHost(responses={"https://a/": lambda request: response}).fetch(REQUEST) is response
    with pytest.raises(GrantFailed, match="gone"):
        await FakeHost(responses={"https://a/": GrantFailed("gone")}).fetch(REQUEST)
    with pytest.raises(GrantFailed, match="slow"):
        await FakeHost(commands={("gh",): GrantFailed("slow")}).run("gh")
