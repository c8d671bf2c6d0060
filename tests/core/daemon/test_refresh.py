from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from moat.api.credentials import Credential
from moat.api.errors import GrantFailed, StoreLocked
from moat.daemon import pace, refresh
from moat.daemon.refresh import is_static

from core.daemon.clocks import BEGIN, TestClock
from core.daemon.making import until
from core.daemon.refreshing import HOUR, Apple, Slowly, TokenServer, a_scene


async def test_a_token_is_renewed_at_its_interval_stored_and_put_into_the_runs() -> None:
    async with a_scene() as scene:
        await scene.later(HOUR * 0.9)
        assert scene.server.asked == []
        await scene.later(HOUR * 0.2)
        await until(lambda: scene.renewed)

        assert scene.server.asked == ["tok-s3cr3t-0"]
        assert scene.renewed == [("", "apple", "tok-s3cr3t-1")]
        assert scene.learnt == ["tok-s3cr3t-1"]
        assert (scene.state.state, scene.state.problem) == ("fresh", "")

        await scene.later(HOUR * 1.1)
        await until(lambda: len(scene.renewed) == 2)
        assert scene.server.asked == ["tok-s3cr3t-0", "tok-s3cr3t-1"]


async def test_a_token_that_expires_earlier_is_renewed_before_its_end() -> None:
    async with a_scene(expires_at=BEGIN + timedelta(seconds=600)) as scene:
        await scene.later(590)
        await until(lambda: scene.renewed)


async def test_a_machine_that_slept_renews_when_it_wakes() -> None:
    async with a_scene() as scene:
        await scene.waits()
        scene.clock.jump(HOUR * 24)
        scene.clock.passes(pace.LOOK_AGAIN_S)
        await until(lambda: scene.renewed)
        await scene.waits()
        scene.clock.jump(-HOUR * 48)  # and a clock that is set back does not make it ask again and again
        await scene.later(HOUR * 0.5)
        assert len(scene.server.asked) == 1


async def test_a_clock_that_is_set_back_delays_no_renewal() -> None:
    async with a_scene() as scene:
        await scene.waits()
        scene.clock.jump(-HOUR * 24)
        await scene.later(HOUR * 1.1)
        await until(lambda: scene.renewed)


async def test_tokens_that_come_expired_by_a_wrong_clock_are_renewed_once_a_minute_and_not_without_end() -> None:
    async with a_scene(expires_at=BEGIN - timedelta(days=3650)) as scene:
        scene.server.lifetime_s = -HOUR
        await scene.later(2)
        await until(lambda: scene.renewed)
        await scene.later(pace.EARLY_PAUSE_S * 5)

        assert 2 <= len(scene.server.asked) <= 6


async def test_failures_are_tried_again_later_and_later_and_are_told() -> None:
    async with a_scene() as scene:
        scene.server.failure = GrantFailed("the service cannot be reached")
        await scene.later(HOUR * 1.01)
        await until(lambda: scene.state.state == "failing")
        assert scene.state.problem == "the service cannot be reached"
        asked = len(scene.server.asked)
        await scene.later(100)
        assert asked < len(scene.server.asked) <= asked + 5
        assert scene.renewed == []

        scene.server.failure = None
        await scene.later(900)
        await until(lambda: scene.renewed)
        assert (scene.state.state, scene.state.problem) == ("fresh", "")


async def test_a_provider_s_own_mistake_ends_nothing() -> None:
    async with a_scene() as scene:
        scene.server.failure = ZeroDivisionError("s3cr3t")
        await scene.later(HOUR * 1.1)
        await until(lambda: scene.state.state == "failing")
        assert "s3cr3t" not in scene.state.problem
        scene.server.failure = None
        await scene.later(HOUR)
        await until(lambda: scene.renewed)


async def test_a_revoked_token_is_renewed_no_more_and_the_runs_are_told() -> None:
    async with a_scene() as scene:
        scene.server.issued = 7  # somebody else has used the token
        await scene.later(HOUR * 1.1)
        await until(lambda: scene.renewed)

        assert scene.state.state == "revoked"
        assert scene.refreshers.revoked("", "apple") == "the service says that the token was revoked"
        await scene.later(HOUR * 5)
        scene.refreshers.rejected("", "apple")
        await scene.later(HOUR)
        assert len(scene.server.asked) == 1
        assert [state.state for state in scene.told][-1] == "revoked"


async def test_granting_anew_heals_a_revoked_token_within_half_a_minute() -> None:
    async with a_scene() as scene:
        scene.server.issued = 7
        await scene.later(HOUR * 1.1)
        await until(lambda: scene.refreshers.revoked("", "apple"))
        scene.vault.kept["", "apple"] = Credential("apple", "tok-s3cr3t-7", "device flow")

        await scene.later(40)
        await until(lambda: scene.refreshers.revoked("", "apple") == "")

        assert scene.renewed[-1] == ("", "apple", "tok-s3cr3t-7")
        await scene.later(HOUR * 1.1)
        await until(lambda: scene.token == "tok-s3cr3t-8")


async def test_a_401_upstream_brings_one_renewal_forward() -> None:
    async with a_scene() as scene:
        await scene.waits()
        for _ in range(50):
            scene.refreshers.rejected("", "apple")
        await until(lambda: scene.renewed)
        await scene.waits()
        for _ in range(50):
            scene.refreshers.rejected("", "apple")
        await scene.later(30)
        assert len(scene.server.asked) == 1

        await scene.later(60)
        scene.refreshers.rejected("", "apple")
        await until(lambda: len(scene.server.asked) == 2)


async def test_after_a_401_a_client_that_renews_by_itself_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Apple, "client_renews_s", 10.0)
    async with a_scene() as scene:
        await scene.waits()
        scene.refreshers.rejected("", "apple")
        await scene.later(5)
        scene.server.issued = 1
        scene.vault.save(Credential("apple", "tok-s3cr3t-1", "device flow"))  # as what it was answered is captured
        await scene.later(10)
        await until(lambda: scene.renewed)
        assert scene.server.asked == []

        await scene.later(120)
        scene.refreshers.rejected("", "apple")
        await scene.later(5)
        assert scene.server.asked == []
        await scene.later(10)
        await until(lambda: scene.server.asked == ["tok-s3cr3t-1"])


async def test_a_token_from_the_environment_is_static_and_a_401_is_told() -> None:
    async with a_scene(source="APPLE_TOKEN") as scene:
        await until(lambda: scene.state.state == "static")
        scene.refreshers.rejected("", "apple")
        await scene.later(HOUR * 5)

        assert scene.server.asked == []
        assert scene.state.problem == "its service answered 401"
        assert scene.vault.keyed == ["apple"]  # a keyring may ask the user: never just to look


async def test_many_runs_on_one_grant_ask_once_and_profiles_each_for_itself() -> None:
    async with a_scene() as scene:
        scene.vault.kept["work", "apple"] = Credential("apple", "tok-s3cr3t-other", "APPLE_TOKEN")
        scene.used.add(("work", "apple"))
        scene.refreshers.changed()
        await until(lambda: len(scene.refreshers.states()) == 2)
        for _ in range(20):
            scene.refreshers.changed()
        await scene.later(HOUR * 1.1)
        await until(lambda: scene.renewed)

        assert scene.server.asked == ["tok-s3cr3t-0"]
        assert scene.vault.kept["work", "apple"].secret == "tok-s3cr3t-other"


async def test_a_grant_that_no_run_spends_any_more_is_left_alone() -> None:
    async with a_scene() as scene:
        scene.used.clear()
        scene.refreshers.changed()
        await until(lambda: scene.refreshers.states() == ())
        scene.clock.passes(HOUR * 5)
        await asyncio.sleep(0.05)

        assert scene.server.asked == []


async def test_what_the_user_granted_meanwhile_is_not_overwritten() -> None:
    async with a_scene() as scene:
        await scene.waits()
        real = scene.server.renew

        async def slowly(token: str, clock: TestClock) -> Credential:
            renewed = await real(token, clock)
            scene.vault.kept["", "apple"] = Credential("apple", "tok-s3cr3t-mine", "APPLE_TOKEN")
            return renewed

        scene.server.renew = slowly  # type: ignore[method-assign] # the one place where both can meet
        await scene.later(HOUR * 1.1)
        await until(lambda: scene.renewed)

        assert scene.token == "tok-s3cr3t-mine"


async def test_a_store_that_is_locked_is_asked_again_later() -> None:
    async with a_scene() as scene:
        scene.vault.failure = StoreLocked("the keyring is locked")
        await scene.later(HOUR * 1.1)
        await until(lambda: scene.state.state == "failing")
        assert scene.state.problem == "the keyring is locked"


def test_what_a_provider_cannot_renew_is_static() -> None:
    provider = Apple(TokenServer(), TestClock())
    provider.refresh_every_s = 0.0  # type: ignore[misc] # of this one only

    assert is_static(provider, Credential("apple", "x", "device flow"))


@pytest.mark.parametrize("source", ["device flow", "prompt"])
def test_what_was_granted_otherwise_is_not(source: str) -> None:
    assert not is_static(Apple(TokenServer(), TestClock()), Credential("apple", "x", source))


async def test_a_run_that_ends_while_its_token_is_renewed_loses_nothing() -> None:
    async with a_scene() as scene:
        slowly = Slowly(scene.server)
        scene.refreshers.rejected("", "apple")
        await slowly.is_asked.wait()
        scene.used.clear()
        scene.refreshers.changed()
        await until(lambda: scene.refreshers.states() == ())
        scene.used.add(("", "apple"))  # and a run that comes now does not spend the old one again
        scene.refreshers.changed()
        await until(lambda: scene.refreshers.states() != ())
        scene.refreshers.rejected("", "apple")
        slowly.goes_on.set()

        await until(lambda: scene.token == "tok-s3cr3t-2")
        assert scene.server.asked == ["tok-s3cr3t-0", "tok-s3cr3t-1"]


async def test_a_daemon_that_leaves_while_a_token_is_renewed_stores_it_first() -> None:
    async with a_scene() as scene:
        slowly = Slowly(scene.server)
        scene.refreshers.rejected("", "apple")
        await slowly.is_asked.wait()
        asyncio.get_running_loop().call_later(0.05, slowly.goes_on.set)

    assert scene.token == "tok-s3cr3t-1"


async def test_a_service_that_never_answers_does_not_keep_a_daemon_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "SETTLE_S", 0.01)
    async with a_scene() as scene:
        slowly = Slowly(scene.server)
        scene.refreshers.rejected("", "apple")
        await slowly.is_asked.wait()

    assert scene.token == "tok-s3cr3t-0"


async def test_a_provider_s_mistake_after_the_last_run_ended_ends_nothing() -> None:
    async with a_scene() as scene:
        slowly = Slowly(scene.server)
        scene.server.failure = ZeroDivisionError("s3cr3t")
        real = scene.server.renew

        async def badly(token: str, clock: TestClock) -> Credential:
            slowly.is_asked.set()
            await slowly.goes_on.wait()
            return await real(token, clock)

        scene.server.renew = badly  # type: ignore[method-assign] # as above
        scene.refreshers.rejected("", "apple")
        await slowly.is_asked.wait()
        scene.used.clear()
        scene.refreshers.changed()
        await until(lambda: scene.refreshers.states() == ())
        slowly.goes_on.set()
        await until(lambda: scene.server.asked)
        await asyncio.sleep(0.01)

        scene.used.add(("", "apple"))
        scene.refreshers.changed()
        await until(lambda: scene.refreshers.states() != ())
