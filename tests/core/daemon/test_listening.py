from __future__ import annotations

import asyncio
import socket

import pytest
from moat.api.errors import UsageError
from moat.daemon.listening import listening, listening_again


def test_the_preferred_port_is_taken_if_it_is_free_and_another_if_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with listening((port, 0)) as listener:
            assert listener.getsockname()[0] == "127.0.0.1"
            assert listener.getsockname()[1] != port
        with pytest.raises(UsageError):
            listening((port,))


def test_only_the_address_that_was_given_is_listened_on() -> None:
    with listening((0,), "127.0.0.2") as listener:
        assert listener.getsockname()[0] == "127.0.0.2"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1"])
def test_an_address_that_stands_for_many_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="more than one interface"):
        listening((0,), address)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="no address"):
        listening((0,), "gateway")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UsageError, match=r"198\.51\.100\.7"):
        listening((0,), "198.51.100.7")


async def test_the_port_of_a_dead_daemon_is_waited_for_a_little() -> None:
    busy = socket.create_server(("127.0.0.1", 0))
    port = busy.getsockname()[1]
    asyncio.get_running_loop().call_later(0.2, busy.close)

    with await listening_again(port, (0,), 20.0) as listener:
        assert listener.getsockname()[1] == port


async def test_a_port_that_stays_taken_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with await listening_again(port, (0,), 0.1) as listener:
            assert listener.getsockname()[1] not in (0, port)
