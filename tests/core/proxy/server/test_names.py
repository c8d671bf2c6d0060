from __future__ import annotations

import ipaddress

import pytest
from moat.proxy.server import names
from moat.proxy.server.names import NETWORK, Names


def test_each_host_gets_one_address_and_it_leads_back() -> None:
    told: list[tuple[str, str]] = []
    found = Names({}, lambda host, address: told.append((host, address)))

    first, second = found.address("a.example"), found.address("b.example")

    assert first != second
    assert found.address("a.example") == first
    assert found.host(first) == "a.example"
    assert found.host("127.107.200.200") is None
    assert told == [("a.example", first), ("b.example", second)]


def test_names_of_an_earlier_life_keep_their_addresses() -> None:
    found = Names({"a.example": "127.107.0.9", "b.example": "127.107.0.1"}, lambda *_: None)

    assert found.address("a.example") == "127.107.0.9"
    assert found.address("c.example") not in ("127.107.0.9", "127.107.0.1")


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1"])
def test_addresses_outside_the_network_are_not_taken_over(address: str) -> None:
    assert Names({"a.example": address}, lambda *_: None).host(address) is None


def test_no_address_looks_like_a_network_or_is_the_gates() -> None:
    found = Names({}, lambda *_: None)

    given = [found.address(f"h{number}.example") for number in range(1000)]

    assert len(set(given)) == 1000
    assert all(ipaddress.ip_address(address) in NETWORK for address in given)
    assert all(address.rpartition(".")[2] not in ("0", "255") for address in given)
    assert "127.107.255.254" not in given


def test_a_full_house_gives_up_the_name_unused_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_NAMES", 2)
    found = Names({}, lambda *_: None)
    first, second = found.address("a.example"), found.address("b.example")
    found.host(first)

    assert found.address("c.example") == second
    assert found.host(second) == "c.example"
    assert found.host(first) == "a.example"
