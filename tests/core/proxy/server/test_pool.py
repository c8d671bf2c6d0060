from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from moat.api.endpoints import OnHost, Upstream
from moat.api.http import Authority
from moat.proxy.messages import Configure
from moat.proxy.refusal import unreachable
from moat.proxy.server import pool as module
from moat.proxy.server.pool import IDLE_S, MAX_IDLE_PER_KEY, Key, Lease, Pool
from moat.proxy.server.stream import HIGH_BYTES, PlainStream, Stream
from moat.proxy.server.upstream import DialSettings
from moat.proxy.server.versions import HTTP1, OnlyHttp2
from support.tls_server import tls_server
from support.upstream import make_test_ca

from core.proxy.server.pairs import plain_pair, until

HTTP = Authority("http", "a.example", 80)
KEY = Key("run_a", HTTP, ("github",))


class Dialler:
    """Counts what is dialled; far ends are kept open."""

    def __init__(self) -> None:
        self.far: list[PlainStream] = []
        self.here: list[bool] = []

    async def __call__(self, *_: object, is_here: bool) -> Stream:
        self.here.append(is_here)
        near, far = await plain_pair()
        self.far.append(far)
        return near


@pytest.fixture
def dialler(monkeypatch: pytest.MonkeyPatch) -> Dialler:
    made = Dialler()
    monkeypatch.setattr(module, "dial", made)
    return made


def a_pool(now: list[float] | None = None) -> Pool:
    times = now or [0.0]
    return Pool(DialSettings.of(Configure("", "")), lambda: times[0])


def close(pool: Pool, dialler: Dialler, *leases: Lease) -> None:
    pool.close()
    for stream in (*dialler.far, *(lease.stream for lease in leases)):
        stream.abort()


async def test_a_connection_is_used_again_for_the_same_key(dialler: Dialler) -> None:
    pool = a_pool()
    first = await pool.lease(KEY)
    pool.give_back(first)
    second = await pool.lease(KEY)

    assert second.stream is first.stream
    assert (first.is_reused, second.is_reused) == (False, True)
    close(pool, dialler, second)


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, run_id="run_b"),
        replace(KEY, grants=()),
        replace(KEY, authority=Authority("http", "b.example", 80)),
        replace(KEY, authority=Authority("http", "a.example", 8080)),
    ],
    ids=["another run", "another credential", "another host", "another port"],
)
async def test_a_connection_is_never_shared_across_keys(other: Key, dialler: Dialler) -> None:
    pool = a_pool()
    first = await pool.lease(KEY)
    pool.give_back(first)
    second = await pool.lease(other)

    assert second.stream is not first.stream
    close(pool, dialler, second)


async def test_fresh_means_dialled(dialler: Dialler) -> None:
    pool = a_pool()
    pool.give_back(await pool.lease(KEY))
    second = await pool.lease(KEY, fresh=True)

    assert len(dialler.far) == 2
    close(pool, dialler, second)


async def test_what_the_upstream_closed_or_said_unasked_is_not_used_again(dialler: Dialler) -> None:
    pool = a_pool()
    closed, chatty = await pool.lease(KEY), await pool.lease(KEY)
    pool.give_back(closed)
    pool.give_back(chatty)
    dialler.far[0].close()
    dialler.far[1].write(b"HTTP/1.1 200 smuggled\r\n\r\n")
    await until(lambda: closed.stream.is_over and bool(chatty.stream.buffer))
    third = await pool.lease(KEY)

    assert not third.is_reused
    close(pool, dialler, third)


async def test_an_old_connection_is_not_used_again(dialler: Dialler) -> None:
    now = [100.0]
    pool = a_pool(now)
    pool.give_back(await pool.lease(KEY))
    now[0] += IDLE_S
    second = await pool.lease(KEY)

    assert not second.is_reused
    close(pool, dialler, second)


async def test_an_upstream_that_takes_little_of_what_is_asked_is_not_asked_again_there(dialler: Dialler) -> None:
    pool = a_pool()
    first = await pool.lease(KEY)
    dialler.far[0].pause()
    first.stream.write(bytes(8 * HIGH_BYTES))
    await until(lambda: first.stream.is_full)
    pool.give_back(first)
    second = await pool.lease(KEY)

    assert second.stream is not first.stream
    await until(lambda: first.stream.untaken() == 0)  # nor does it stay, for a peer that may never take the rest
    close(pool, dialler, second)


async def test_one_that_takes_nothing_any_more_is_closed_with_the_pool(dialler: Dialler) -> None:
    pool = a_pool()
    first = await pool.lease(KEY)
    dialler.far[0].pause()
    first.stream.write(bytes(HIGH_BYTES))
    await until(lambda: first.stream.untaken() > 0)
    pool.give_back(first)
    pool.close()

    await until(lambda: first.stream.untaken() == 0)
    close(pool, dialler)


async def test_only_a_few_are_kept_and_none_after_closing(dialler: Dialler) -> None:
    pool = a_pool()
    leases = [await pool.lease(KEY) for _ in range(MAX_IDLE_PER_KEY + 2)]
    for lease in leases[:-1]:
        pool.give_back(lease)
    await until(lambda: dialler.far[MAX_IDLE_PER_KEY].is_over)
    pool.close()
    pool.give_back(leases[-1])

    await until(lambda: all(far.is_over for far in dialler.far))
    close(pool, dialler)


async def test_when_the_pool_is_full_the_connection_unused_for_longest_makes_room(
    dialler: Dialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IDLE", 2)
    now = [0.0]
    pool = a_pool(now)
    keys = [replace(KEY, run_id=f"run_{number}") for number in range(3)]
    for key in keys:
        now[0] += 1
        pool.give_back(await pool.lease(key))
    again = [await pool.lease(key) for key in keys]

    assert [lease.is_reused for lease in again] == [False, True, True]
    close(pool, dialler, *again)


async def test_an_end_that_the_loop_has_not_seen_yet_is_seen_before_use(dialler: Dialler) -> None:
    now = [0.0]
    pool = a_pool(now)
    first = await pool.lease(KEY)
    pool.give_back(first)
    with socket.fromfd(
        dialler.far[0].transport.get_extra_info("socket").fileno(), socket.AF_UNIX, socket.SOCK_STREAM
    ) as far:
        far.shutdown(socket.SHUT_RDWR)  # at once: no turn of the loop until the next lease
    assert not first.stream.is_over
    second = await pool.lease(KEY)

    assert not second.is_reused
    close(pool, dialler, second)


async def test_a_quiet_connection_is_used_again(dialler: Dialler) -> None:
    now = [0.0]
    pool = a_pool(now)
    pool.give_back(await pool.lease(KEY))
    second = await pool.lease(KEY)

    assert second.is_reused
    close(pool, dialler, second)


async def test_dropping_a_run_closes_what_was_kept_for_it_only(dialler: Dialler) -> None:
    pool = a_pool()
    other = replace(KEY, run_id="run_b")
    mine, theirs = await pool.lease(KEY), await pool.lease(other)
    pool.give_back(mine)
    pool.give_back(theirs)
    pool.drop_run("run_a")

    await until(lambda: dialler.far[0].is_over)
    again = await pool.lease(other)
    assert again.stream is theirs.stream
    close(pool, dialler, again)


HTTPS = Key("run_a", Authority("https", "a.example", 443), ())


async def test_an_upstream_that_ends_the_handshake_for_its_version_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled: list[object] = []

    async def refuse(*arguments: object, is_here: bool) -> Stream:
        dialled.append(arguments)
        raise unreachable("no version in common", "http-version")

    monkeypatch.setattr(module, "dial", refuse)
    pool = a_pool()
    for _ in range(2):
        with pytest.raises(OnlyHttp2):
            await pool.lease(HTTPS)

    assert len(dialled) == 1


async def test_an_endpoint_that_says_so_is_not_even_dialled(dialler: Dialler) -> None:
    pool = a_pool()
    key = Key("run_a", HTTPS.authority, (), Upstream("a.example", alpn=("h2",)))

    with pytest.raises(OnlyHttp2):
        await pool.lease(key)
    assert dialler.far == []


async def test_an_upstream_without_alpn_is_looked_at_once_and_used_as_ever() -> None:
    ca = make_test_ca()
    context = ca.server_context("a.example")
    context.set_alpn_protocols([])
    with tls_server(context) as server:
        settings = Configure("", "", ca.pem, {"a.example": server.pin})
        pool = Pool(DialSettings.of(settings))
        leases = [await pool.lease(HTTPS) for _ in range(3)]
        await until(lambda: len(server.handshakes) == 4)
        for lease in leases:
            lease.stream.abort()
        pool.close()

    assert pool.versions.only(HTTPS.authority) == HTTP1


@pytest.mark.parametrize(
    ("upstream", "is_here"), [(None, False), (Upstream("a.example"), False), (OnHost(80).upstream, True)]
)
async def test_only_a_port_that_the_user_opened_is_dialled_on_this_machine(
    upstream: Upstream | None, is_here: bool, dialler: Dialler
) -> None:
    pool = a_pool()

    lease = await pool.lease(Key("run_a", HTTP, (), upstream))

    assert dialler.here == [is_here]
    close(pool, dialler, lease)
