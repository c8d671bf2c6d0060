from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import ctypes, json, os, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
wanted = 65536 if hard < 0 else min(hard, 65536)
from moat.daemon.hardening import harden
harden()
print(json.dumps([ctypes.CDLL(None).prctl(3), resource.getrlimit(resource.RLIMIT_CORE),
                  resource.getrlimit(resource.RLIMIT_NOFILE)[0] == wanted, oct(os.umask(0))]))
"""


def test_the_process_is_closed_to_others_and_leaves_no_core() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == '[0, [0, 0], true, "0o77"]'
