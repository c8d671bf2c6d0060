from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from moat.proxy.refusal import Refusal, late, unreachable
from moat.proxy.server.race import MAX_TARGETS, STAGGER_S, Target, first_connected, interleaved
from moat.proxy.server.stream import PlainStream

from core.proxy.server.pairs import plain_pair, until

SIX, FOUR = ("2001:db8::1", 443), ("192.0.2.1", 443)
SOON_S, NEVER_S = 0.0, 3600.0


@dataclass
class Network:
    """Addresses that answer, refuse or stay silent; remembers who was tried, in order, and who was given up."""

    answers: dict[Target, str]
    tried: list[Target] = field(default_factory=list)
    given_up: list[Target] = field(default_factory=list)
    made: dict[Target, PlainStream] = field(default_factory=dict)
    waiting: dict[Target, asyncio.Event] = field(default_factory=dict)

    async def connect(self, target: Target) -> PlainStream:
        self.tried.append(target)
        answer = self.answers[target]
        if answer == "silent":
            try:
                await self.waiting.setdefault(target, asyncio.Event()).wait()
            except asyncio.CancelledError:
                self.given_up.append(target)
                raise
        if answer != "yes":
            raise late("silent") if answer == "silent" else unreachable(answer, "refused")
        near, far = await plain_pair()
        far.abort()
        self.made[target] = near
        return near


Make = Callable[[dict[Target, str]], Network]


@pytest.fixture
async def network_of() -> AsyncIterator[Make]:
    networks: list[Network] = []

    def make(answers: dict[Target, str]) -> Network:
        networks.append(Network(answers))
        return networks[-1]

    yield make
    for network in networks:
        for stream in network.made.values():
            stream.abort()


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([("::1", 1), ("::2", 1), ("1.1.1.1", 1), ("2.2.2.2", 1)], ["::1", "1.1.1.1", "::2", "2.2.2.2"]),
        ([("1.1.1.1", 1), ("2.2.2.2", 1), ("::1", 1)], ["1.1.1.1", "::1", "2.2.2.2"]),
        ([("1.1.1.1", 1), ("2.2.2.2", 1)], ["1.1.1.1", "2.2.2.2"]),
        ([], []),
    ],
    ids=["v6 preferred", "v4 preferred", "one family", "none"],
)
def test_families_take_turns_and_the_resolvers_first_is_first(targets: list[Target], expected: list[str]) -> None:
    assert [address for address, _ in interleaved(targets)] == expected


def test_a_name_with_hundreds_of_addresses_is_not_tried_hundreds_of_times() -> None:
    assert len(interleaved([(f"192.0.2.{number}", 443) for number in range(200)])) == MAX_TARGETS


def test_the_next_attempt_begins_a_quarter_of_a_second_after_the_last() -> None:
    assert inspect.signature(first_connected).parameters["stagger_s"].default == STAGGER_S == 0.25


async def test_a_silent_address_does_not_hold_up_the_other_family(network_of: Make) -> None:
    network = network_of({SIX: "silent", FOUR: "yes"})

    stream = await first_connected([SIX, FOUR], network.connect, stagger_s=SOON_S)

    assert stream is network.made[FOUR]
    assert (network.tried, network.given_up) == ([SIX, FOUR], [SIX])


async def test_an_address_that_answers_in_time_is_the_only_one_tried(network_of: Make) -> None:
    network = network_of({SIX: "yes", FOUR: "yes"})

    await first_connected([SIX, FOUR], network.connect, stagger_s=NEVER_S)

    assert network.tried == [SIX]


async def test_a_failure_starts_the_next_attempt_at_once(network_of: Make) -> None:
    network = network_of({SIX: "refused", FOUR: "yes"})

    assert await first_connected([SIX, FOUR], network.connect, stagger_s=NEVER_S) is network.made[FOUR]


async def test_the_first_address_may_still_win_after_its_head_start(network_of: Make) -> None:
    network = network_of({SIX: "late", FOUR: "silent"})
    answered = asyncio.Event()

    async def connect(target: Target) -> PlainStream:
        if target == FOUR:  # the second attempt has begun: now the first one is answered
            answered.set()
        elif await answered.wait():
            network.answers[SIX] = "yes"
        return await network.connect(target)

    assert await first_connected([SIX, FOUR], connect, stagger_s=SOON_S) is network.made[SIX]
    assert network.given_up == [FOUR]


async def test_a_client_that_goes_away_ends_every_attempt(network_of: Make) -> None:
    network = network_of({SIX: "silent", FOUR: "silent"})

    async with asyncio.TaskGroup() as group:
        race = group.create_task(first_connected([SIX, FOUR], network.connect, stagger_s=SOON_S))
        await until(lambda: len(network.waiting) == 2)
        race.cancel()

    assert sorted(network.given_up) == sorted([SIX, FOUR])


async def test_when_nobody_answers_the_last_reason_is_told(network_of: Make) -> None:
    network = network_of({SIX: "network is unreachable", FOUR: "connection refused"})

    with pytest.raises(Refusal, match="connection refused"):
        await first_connected([SIX, FOUR], network.connect, stagger_s=NEVER_S)


async def test_a_second_connection_made_in_the_same_turn_is_closed(network_of: Make) -> None:
    network = network_of({SIX: "yes", FOUR: "yes"})
    both = asyncio.Event()

    async def together(target: Target) -> PlainStream:
        stream = await network.connect(target)
        if len(network.made) == 2:
            both.set()
        await both.wait()
        return stream

    used = await first_connected([SIX, FOUR], together, stagger_s=SOON_S)
    (spare,) = (stream for stream in network.made.values() if stream is not used)

    assert spare.transport.is_closing()
    assert not used.transport.is_closing()
