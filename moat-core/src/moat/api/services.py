"""Services of a run: databases and the like that stand beside its command, for as long as it lasts. Values only.

Service: what was asked for ─▶ Sidecar: what a runtime starts in the run's own network, before the command
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from moat.api.light import dataclass

HIDDEN = "(generated)"  # what stands for a password where a plan or a service's words are shown


@dataclass(frozen=True, slots=True)
class Service:
    """One service as it was asked for.

    kind: a known one (`config/services.py`), "" for any other. env: what is set in the service besides what its kind
    sets; may hold secrets of the user's. ready: a command in the service that ends with 0 when it can be used; () for
    what its kind does, and for any other until something listens at port. args: after those of its kind, else in the
    place of the image's own. user: in the image; "" for that of its kind,
    or the image's own.
    """

    name: str
    image: str
    port: int
    kind: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ready: tuple[str, ...] = ()
    args: tuple[str, ...] = field(default=(), repr=False)
    user: str = ""

    @property
    def prefix(self) -> str:
        """What the names of its variables begin with, in the run."""
        return self.name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One service as it is started. argv: () for what the image says. secrets: what no output of ours may show."""

    name: str
    image: str
    port: int
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    argv: tuple[str, ...] = field(default=(), repr=False)
    ready: tuple[str, ...] = ()
    user: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)


def hidden(text: str, sidecars: Iterable[Sidecar]) -> str:
    """Return text without the secrets of sidecars."""
    for secret in filter(None, (secret for each in sidecars for secret in each.secrets)):
        text = text.replace(secret, HIDDEN)
    return text
