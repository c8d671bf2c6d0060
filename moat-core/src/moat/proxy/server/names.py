"""A run's names and addresses: each host that the run looked up has an address of its own in 127.107.0.0/16. No I/O.

Bounded: the name unused for longest gives its address up. Told of every new pair, the daemon keeps it, so that clients
which cached an address find the same host behind it after the worker was replaced.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

NETWORK = ipaddress.IPv4Network("127.107.0.0/16")
MAX_NAMES = 4096


class Names:
    """Hosts and addresses of one run, one to one."""

    def __init__(self, known: Mapping[str, str], on_new: Callable[[str, str], None]) -> None:
        self._addresses: OrderedDict[str, str] = OrderedDict()
        self._hosts: dict[str, str] = {}
        self._on_new = on_new
        self._candidates = _candidates()
        for host, address in list(known.items())[-MAX_NAMES:]:
            if address not in self._hosts and ipaddress.ip_address(address) in NETWORK:
                self._keep(host, address)

    def host(self, address: str) -> str | None:
        """Return the host that address stands for; None if it was never given out."""
        host = self._hosts.get(address)
        if host is not None:
            self._addresses.move_to_end(host)
        return host

    def address(self, host: str) -> str:
        """Return the address of a canonical host, given out now if need be."""
        if host in self._addresses:
            self._addresses.move_to_end(host)
            return self._addresses[host]
        address = self._free()
        self._keep(host, address)
        self._on_new(host, address)
        return address

    def _free(self) -> str:
        if len(self._addresses) >= MAX_NAMES:
            _, address = self._addresses.popitem(last=False)
            del self._hosts[address]
            return address
        return next(address for address in self._candidates if address not in self._hosts)

    def _keep(self, host: str, address: str) -> None:
        self._addresses[host] = address
        self._hosts[address] = host


def _candidates() -> Iterator[str]:
    """Yield addresses over and over, never .0 or .255 (some clients take them for networks), nor the gate's own /24."""
    while True:
        for number in range(1, 255 * 256):
            if number % 256 not in (0, 255):
                yield str(NETWORK[number])
