"""The event loop of all tests: before it closes, it ends the connections that its servers still hold.

A stand-in for a remote service is stopped while its peer, a proxy's pool say, may still be there. asyncio would leave
the connection's socket to the garbage collector, which then blames whatever test runs at that moment. Connections that
were opened here, not accepted, stay as they are: who forgets one is to hear of it.
"""

from __future__ import annotations

import asyncio

_TURNS = 3  # TLS tells its protocol of the end a turn after the socket's transport has


class ServingLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with that end."""

    def close(self) -> None:
        """Abort what servers accepted and never ended, then close."""
        left = () if self.is_closed() else tuple(self._transports.values())  # type: ignore[attr-defined] # by descriptor
        accepted = [transport for transport in left if transport._server is not None]
        for transport in accepted:
            transport.abort()
        for _ in range(_TURNS if accepted else 0):
            self.run_until_complete(asyncio.sleep(0))
        super().close()


class ServingPolicy(asyncio.DefaultEventLoopPolicy):
    """Gives every test, and every thread of a test, such a loop."""

    _loop_factory = ServingLoop
