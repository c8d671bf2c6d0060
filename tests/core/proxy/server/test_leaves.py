from __future__ import annotations

import ssl

import pytest
from moat.proxy.server import leaves
from moat.proxy.server.leaves import KEPT_S, MAX_CONTEXTS, Leaves

from core.proxy.server.pairs import CA, LEAVES, tls_pair


def test_a_host_keeps_its_context_for_a_day() -> None:
    now = [1_800_000_000.0]
    made = Leaves(CA, lambda: now[0])

    first = made.context("a.example")
    assert made.context("a.example") is first
    assert made.context("b.example") is not first
    now[0] += KEPT_S
    assert made.context("a.example") is not first


def test_a_host_has_a_context_of_its_own_for_each_version() -> None:
    made = Leaves(CA)
    first, second = made.context("a.example"), made.context("a.example", http2=True)

    assert first is not second
    assert (made.context("a.example"), made.context("a.example", http2=True)) == (first, second)


def test_a_flood_of_names_evicts_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "MAX_CONTEXTS", 2)
    made = Leaves(CA)

    first = made.context("a.example")
    made.context("b.example")
    made.context("a.example")
    made.context("c.example")

    assert made.context("a.example") is first
    assert MAX_CONTEXTS > 2


async def test_the_hosts_own_name_is_accepted_in_any_case() -> None:
    client, server = await tls_pair("api.example.com", "API.example.com")

    client.abort()
    server.abort()


async def test_another_name_in_the_hello_gets_an_alert() -> None:
    with pytest.raises(ExceptionGroup) as failed:
        await tls_pair("api.example.com", "other.example.com")

    assert failed.group_contains(ssl.SSLError)


def test_only_http_1_1_and_modern_tls_are_offered() -> None:
    assert LEAVES.context("a.example").minimum_version is ssl.TLSVersion.TLSv1_2
