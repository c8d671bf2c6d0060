from __future__ import annotations

import ipaddress
import socket

import pytest
from moat.proxy.server.hairpin import in_our_namespace, is_here, leads_to
from moat.proxy.server.race import Target
from support.connect_proxy import connect_proxy
from support.worker import RUN, TOKEN, a_run

from core.proxy.server.house_of import a_house

GET = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.mark.parametrize(
    ("target", "listener", "is_ours"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80), True),
        (("127.0.0.1", 81), ("127.0.0.1", 80), False),
        (("127.0.0.2", 80), ("127.0.0.1", 80), False),
        (("127.0.0.2", 80), ("0.0.0.0", 80), True),
        (("::1", 80), ("::", 80), True),
        (("0.0.0.0", 80), ("127.0.0.1", 80), True),
        (("::ffff:127.0.0.1", 80), ("127.0.0.1", 80), True),
        (("192.0.2.1", 80), ("0.0.0.0", 80), False),
    ],
)
def test_an_address_in_any_spelling_leads_to_its_listener(target: Target, listener: Target, *, is_ours: bool) -> None:
    assert leads_to(target, listener) is is_ours


def test_this_machine_is_here_and_the_world_is_not() -> None:
    assert is_here(ipaddress.ip_address("127.0.0.1"))
    assert not is_here(ipaddress.ip_address("8.8.8.8"))


def test_a_socket_of_our_own_is_in_our_namespace() -> None:
    with socket.socket() as sock:
        assert in_our_namespace(sock)


@pytest.mark.parametrize("way", ["a pin", "an opened range", "the company's proxy"])
async def test_a_request_that_is_led_back_to_us_is_508(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings: dict[str, dict[str, object]] = {
        "a pin": {"resolve": {"a.example": f"127.0.0.1:{port}"}},
        "an opened range": {"allow_cidrs": ("127.0.0.0/8",)},
        "the company's proxy": {"proxy": f"http://127.0.0.1:{port}"},
    }
    host = f"127.0.0.1:{port}" if way == "an opened range" else "a.example"
    async with a_house(a_run(), **settings[way]) as guest:  # type: ignore[arg-type] # mixed by design
        client = await guest.connect(guest.listen(RUN, "proxy", port=port))
        answer = await guest.ask(client, GET.replace(b"a.example", host.encode()), b"leads back to this proxy\n")

        assert answer.startswith(b"HTTP/1.1 508 Loop Detected\r\n")
        assert b"X-Moat-Error: loop\r\n" in answer
        assert [record.status for record in guest.records] == [508]


async def test_what_passes_carries_no_mark_of_ours() -> None:
    with connect_proxy({}) as proxy:
        async with a_house(a_run(), proxy=proxy.url) as guest:
            await guest.ask(await guest.connect(guest.listen(RUN, "proxy")), GET, b"\r\n\r\n")

    assert [line for line in proxy.heads[0] if "via" in line.lower() or TOKEN in line or RUN in line] == []
