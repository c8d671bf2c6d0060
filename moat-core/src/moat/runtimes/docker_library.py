"""Loads aiodocker without the authorities of the web: reading those twice takes 40 of its 110 ms, at every start.

aiohttp makes two TLS contexts with the system's roots when it is imported. An engine on this machine is talked to in
the clear over a unix socket. For any other `trust_roots` puts the roots in; until then nobody is trusted.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

_ROOTS = "set_default_verify_paths"  # what every way of loading them ends in
_without: list[ssl.SSLContext] = []


def load_library() -> None:
    """Import aiodocker; with roots where somebody has imported aiohttp before. Raises ImportError."""
    import ssl  # not at the top: runs in bubblewrap load this module too

    if "aiohttp" not in sys.modules:
        setattr(ssl.SSLContext, _ROOTS, lambda self: _without.append(self))
        try:
            importlib.import_module("aiohttp")
        finally:
            delattr(ssl.SSLContext, _ROOTS)  # the method of its parent is behind it
    importlib.import_module("aiodocker")


def trust_roots() -> None:
    """Trust the system's roots after all."""
    while _without:
        _without.pop().set_default_verify_paths()
