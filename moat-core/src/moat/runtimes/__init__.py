"""What can hold a run: the built-in runtimes, registered like any plugin's; importing this loads none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moat.api.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moat.api.runtimes import Runtime


@hookimpl
def moat_runtimes() -> Iterable[Runtime]:
    """Return the built-in runtimes."""
    from moat.runtimes.bubblewrap import Bubblewrap
    from moat.runtimes.docker import Docker
    from moat.runtimes.gvisor import Gvisor
    from moat.runtimes.podman import Podman
    from moat.runtimes.process import Process

    return [Docker(), Podman(), Bubblewrap(), Gvisor(), Process()]


def runtime_called(name: str) -> Runtime | None:
    """Return the built-in runtime that can begin before anything else is loaded, None for any other name."""
    if name != "bubblewrap":
        return None
    from moat.runtimes.bubblewrap import Bubblewrap

    return Bubblewrap()
