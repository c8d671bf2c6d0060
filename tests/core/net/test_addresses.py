from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.net.addresses import METADATA, is_metadata, refusal, unwrapped

EVERYTHING = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def disguises(address: ipaddress.IPv4Address) -> dict[str, str]:
    low = int(address)
    forms = {
        "mapped": 0xFFFF << 32 | low,
        "compatible": low,
        "translated": 0xFFFF << 48 | low,
        "nat64": 0x0064FF9B << 96 | low,
        "6to4": 0x2002 << 112 | low << 80 | 1,
        "teredo server": 0x20010000 << 96 | low << 64 | 0xF7F7F7F7,
        "teredo client": 0x20010000 << 96 | 0x08080808 << 64 | (~low & 0xFFFFFFFF),
    }
    return {name: str(ipaddress.IPv6Address(bits)) for name, bits in forms.items()}


@pytest.mark.parametrize("address", ["8.8.8.8", "140.82.112.3", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_may_be_dialled(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "127.0.0.1",
        "127.107.0.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "2001:db8::1",
        "fec0::1",
        "100::1",
        "64:ff9b:1::1",
        "5f00::1",
        "fe80::1%eth0",
        "localhost",
        "",
    ],
)
def test_everything_else_is_refused_with_a_reason(address: str) -> None:
    assert refusal(address)


@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_no_disguise_hides_a_private_address(address: ipaddress.IPv4Address) -> None:
    assert {name: bool(refusal(form)) for name, form in disguises(address).items()} == dict.fromkeys(
        disguises(address), True
    )


@pytest.mark.parametrize("address", sorted(map(str, METADATA)))
def test_metadata_is_refused_even_when_everything_is_allowed(address: str) -> None:
    assert refusal(address, EVERYTHING)
    assert is_metadata(address)


def test_metadata_is_refused_in_every_disguise() -> None:
    forms = disguises(ipaddress.IPv4Address("169.254.169.254"))

    assert [name for name, form in forms.items() if refusal(form, EVERYTHING) is None] == []


def test_an_allowed_range_opens_its_addresses_and_no_others() -> None:
    ranges = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8"))

    assert refusal("10.1.2.3", ranges) is None
    assert refusal("::ffff:10.1.2.3", ranges) is None
    assert refusal("fd12::1", ranges) is None
    assert refusal("10.2.0.1", ranges)
    assert refusal("127.0.0.1", ranges)


def test_an_ordinary_address_carries_no_other() -> None:
    assert unwrapped(ipaddress.ip_address("2606:4700::1111")) == ()
    assert unwrapped(ipaddress.ip_address("8.8.8.8")) == ()


@given(st.ip_addresses())
def test_every_address_gets_an_answer(address: ipaddress.IPv4Address) -> None:
    assert refusal(str(address)) is None or str(address) in str(refusal(str(address)))
