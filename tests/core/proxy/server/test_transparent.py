from __future__ import annotations

from support.worker import RUN, a_run

from core.proxy.server.house_of import a_house, scripted
from core.proxy.server.pairs import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
ADDRESS = "127.107.0.5"


async def test_the_local_address_tells_the_name_and_host_must_agree() -> None:
    async with scripted(OK) as (pin, heads), a_house(resolve={"a.example": pin}) as guest:
        guest.house.put(a_run(), {"a.example": ADDRESS})
        door = guest.listen(RUN, "http", ADDRESS)
        answer = await guest.ask(await guest.connect(door), GET, b"\r\n\r\nok")
        other = await guest.ask(await guest.connect(door), GET.replace(b"a.example", b"b.example"), b"moat: ")

    assert answer.endswith(b"ok")
    assert len(heads) == 1
    assert other.startswith(b"HTTP/1.1 421 ")
    assert [(record.via, record.host, record.port) for record in guest.records] == [
        ("transparent", "a.example", 80)
    ] * 2


async def test_an_address_that_was_never_given_out_leads_nowhere() -> None:
    async with a_house(a_run()) as guest:
        plain = await guest.ask(await guest.connect(guest.listen(RUN, "http", ADDRESS)), GET, b"never")
        secure = await guest.ask(await guest.connect(guest.listen(RUN, "tls", ADDRESS)), b"\x16\x03", b"never")
        await until(lambda: len(guest.records) == 2)

    assert plain.startswith(b"HTTP/1.1 421 ")
    assert secure == b""
    assert {record.host for record in guest.records} == {ADDRESS}


async def test_bytes_that_are_no_tls_are_recorded_at_the_tls_door() -> None:
    async with a_house() as guest:
        guest.house.put(a_run(), {"a.example": ADDRESS})
        await guest.ask(await guest.connect(guest.listen(RUN, "tls", ADDRESS)), GET, b"never")
        await until(lambda: bool(guest.records))

    assert "TLS was not understood" in guest.records[0].reason
