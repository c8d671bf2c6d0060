from __future__ import annotations

import base64
import resource

import pytest
from moat.proxy.server import rooms
from support.worker import OTHER_RUN, RUN, a_run

from core.proxy.server.house_of import a_house
from core.proxy.server.pairs import until


def asking(token: str) -> bytes:
    basic = base64.b64encode(f"x:{token}".encode()).decode()
    return f"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: Basic {basic}\r\n\r\n".encode()


async def test_a_connection_counts_in_the_room_of_the_run_whose_token_it_showed() -> None:
    async with a_house(a_run(), a_run(OTHER_RUN, token="s3cr3t-other")) as guest:
        client = await guest.connect(guest.listen("", "token"))
        kept = guest.house._rooms
        await until(lambda: len(kept[""].connections) == 1)
        await guest.ask(client, asking("s3cr3t-other"), b"\r\n\r\n")

        assert [len(kept[run_id].connections) for run_id in ("", RUN, OTHER_RUN)] == [0, 0, 1]
        guest.house.drop(OTHER_RUN)
        await until(lambda: client.is_over)


async def test_a_listener_goes_on_when_connections_leave_for_their_run_s_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MAX_UNIDENTIFIED", 1)
    async with a_house(a_run()) as guest:
        shared = guest.listen("", "token")
        for _ in range(3):
            assert b" 200 " in await guest.ask(await guest.connect(shared), asking("s3cr3t-run-token"), b"\r\n\r\n")


def test_a_room_fits_the_descriptors_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, run, anybody in ((65_536, 2048, 256), (1024, 256, 256), (256, 64, 64), (-1, 2048, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))

        assert (rooms.limit_of(RUN), rooms.limit_of("")) == (run, anybody)
