"""The gate's first moments in a container: gives lo its second address, then gives up every privilege and is the gate.

    uid 0, NET_ADMIN SETUID SETGID ──▶ address ──▶ the invoker's uid and gid, no capability ──▶ gate.main()

Runs alone (`python -I -S gate_start.py UID GID`, beside gate.py): standard library only, nothing of moat. It listens to
nobody; before its last privilege is gone it has read nothing but its two arguments.
"""

import ctypes
import os
import struct
import sys
from pathlib import Path

CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 (capget(2)): 64 bits, as two structures
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


def give_up_privileges(uid: int, gid: int) -> None:
    """Become uid and gid without any capability. Raises OSError when that does not work."""
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)  # takes the capabilities with it, unless uid is 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if libc.capset(struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")
    if held := capabilities():
        raise OSError(0, f"capabilities are left: {held}")


def capabilities() -> list[str]:
    """Return the lines of our status that name a capability which we hold or could pass on."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    sets = [line for line in lines if line.startswith(("CapEff:", "CapPrm:", "CapInh:", "CapAmb:"))]
    return [line for line in sets if int(line.split()[1], 16)]


def main() -> int:
    """Do it, and be the gate."""
    sys.path.insert(0, str(Path(__file__).parent))
    import gate  # type: ignore[import-not-found] # lies beside this file, in the container

    gate.add_second_address()
    give_up_privileges(*map(int, sys.argv[1:]))
    del sys.argv[1:]  # the gate would take them for its own
    return int(gate.main())


if __name__ == "__main__":
    sys.exit(main())
