"""The hostile program: tries every way out, one after the other, and prints a report. Never gives up, never crashes.

python3 /workspace/hostile/inside/main.py /workspace/targets.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.dont_write_bytecode = True

from hostile.inside import compat, door, kernel, names, netlink, network, processes, secrets, sockets  # noqa: E402  # path first


def main() -> None:
    """Read what to aim at, try everything, print the outcomes by group."""
    targets = json.loads(Path(sys.argv[1]).read_text())
    report = door.everything(targets["door"])  # first: it tells which descriptors we were born with
    report |= network.everything(targets)
    report |= netlink.everything()
    report |= names.everything(targets["names"], targets["resolvers"])
    report |= sockets.everything(targets["unix"], targets["own"], targets["queue"])
    report |= kernel.everything()
    report |= compat.everything()
    report |= processes.everything()
    report |= secrets.everything(targets["marks"], targets["since"], targets["own"])
    sys.stdout.write(json.dumps(report))


main()
