"""May this leave? One question, asked of every request, answered from the policy, the grants and the one Authority.

Decides on names; what a name resolves to is judged at dial time by `addresses`. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from moat.api.http import DEFAULT_PORTS, Authority
from moat.api.runs import NetworkPolicy
from moat.net.addresses import is_metadata
from moat.net.authority import is_address
from moat.net.hosts import HostPattern

# Names under which clouds answer with the machine's own credentials: GCP (two), AWS, Azure.
METADATA_NAMES = frozenset(
    ("metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal",
     "metadata.azure.internal")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a request may not leave. allow_line: what the user adds to let it, "" where nothing would."""

    reason: str
    allow_line: str = ""


def objection(
    policy: NetworkPolicy, grant_authorities: Collection[Authority], authority: Authority
) -> Objection | None:
    """Return why authority may not be reached, or None when it may.

    grant_authorities: where the run's credentials are spent; strict lets these out too.
    """
    if _is_metadata(authority.host):
        return Objection(f"{authority.host} is a metadata service, which no policy opens")
    if policy.mode == "permissive" or authority in grant_authorities:
        return None
    if any(pattern.matches(authority) for pattern in _patterns(policy.allow)):
        return None
    return Objection(f"strict policy: {authority} is not allowed", allow_line(authority))


def is_nameable(policy: NetworkPolicy, grant_authorities: Collection[Authority], host: str) -> bool:
    """Whether the policy lets anything out to host on the ports of the transparent path."""
    candidates = (Authority(scheme, host, port) for scheme, port in DEFAULT_PORTS.items())
    return any(objection(policy, grant_authorities, each) is None for each in candidates)


def allow_line(authority: Authority) -> str:
    """Return the flag that would let authority out, as the user types it."""
    return f"--allow-host {authority}"


def _is_metadata(host: str) -> bool:
    return host in METADATA_NAMES or (is_address(host) and is_metadata(host))


@lru_cache(maxsize=256)
def _patterns(allow: tuple[str, ...]) -> tuple[HostPattern, ...]:
    return tuple(HostPattern.parse(text) for text in allow)
