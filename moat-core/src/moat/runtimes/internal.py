"""The fallback for engines that no descriptor reaches (remote, in a virtual machine, gVisor): no door, a proxy address.

    command ── internal network ──▶ its gateway, or host.docker.internal ──▶ the daemon, by run token

It is weaker than a door, and the launcher says so (CAVEAT). What it cannot promise:
- every address of the engine's host answers inside, so services that listen there on all addresses can be reached;
- the token stands in the run's environment and in `docker inspect`; whoever has it can use the proxy as this run;
- that nothing else answers is the work of the engine's firewall rules, and nothing probes it from inside;
- clients that ignore proxy variables reach nothing: there is no transparent path.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, SandboxSpec
from moat.runtimes.docker_engine import remove_network, told_as, uninterrupted
from moat.runtimes.elsewhere import with_proxy
from moat.runtimes.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiodocker.types import JSONObject

CAVEAT = "no door on this engine: services on the host's own addresses can be reached, and the run holds a proxy token"
HOST_NAME = "host.docker.internal"
LOOPBACK = "127.0.0.1"


def network_name(run_id: str) -> str:
    """Return the name of the run's own network."""
    return f"moat-{run_id}"


async def prepare(docker: Engine, spec: SandboxSpec, ticket: DoorTicket, marks: Mapping[str, str]) -> SandboxSpec:
    """Make the network, have the daemon listen where it leads; return spec with that proxy. Raises SandboxFailed."""
    if ticket.listen is None:
        raise SandboxFailed(
            "this engine is remote or in a virtual machine, where the door does not reach",
            hint="use --runtime bubblewrap, or an engine on this machine",
        )
    gateway = await _make_network(docker, spec.run_id, marks)
    async with docker.with_gateway(network_name(spec.run_id), marks):
        if _is_ours(gateway):
            proxy = await ticket.listen(gateway)
        else:  # an engine in a virtual machine forwards this name to the loopback of the machine around it
            proxy = (await ticket.listen(LOOPBACK)).replace(f"@{LOOPBACK}:", f"@{HOST_NAME}:")
    env = {name: with_proxy(value, proxy) for name, value in spec.env.items()}
    return replace(spec, env=env)


def adapted(config: JSONObject) -> JSONObject:
    """Return a container's config for the internal network: the host by name, and nobody to ask for other names.

    An engine's own resolver may ask the host's servers even from an internal network (CVE-2024-29018), so it is told of
    one that is not there: the container's own loopback.
    """
    host = config["HostConfig"]
    if not isinstance(host, dict):
        raise TypeError("HostConfig is an object")
    return {**config, "HostConfig": {**host, "Dns": [LOOPBACK], "ExtraHosts": [f"{HOST_NAME}:host-gateway"]}}


async def remove(docker: Engine, name: str) -> None:
    """Remove the run's network; one that is gone is fine. Raises SandboxFailed."""
    await uninterrupted(remove_network(docker, name))


async def _make_network(docker: Engine, run_id: str, marks: Mapping[str, str]) -> str:
    config = {"Name": network_name(run_id), "Internal": True, "CheckDuplicate": True, "Labels": dict(marks)}
    with told_as(docker, "make an internal network"):
        network = await uninterrupted(docker.networks.create(config))
        facts = await network.show()
    for settings in facts.get("IPAM", {}).get("Config") or ():
        if gateway := settings.get("Gateway"):
            return str(gateway)
    return ""


def _is_ours(address: str) -> bool:
    """Whether address belongs to this machine, so that the daemon can listen there."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET) as sock:
        sock.bind((address or "0.0.0.1", 0))
        return True
    return False
