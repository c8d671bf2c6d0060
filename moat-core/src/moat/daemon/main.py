"""The daemon's process: `python -m moat.daemon.main --home PATH`.

Closes itself to others, takes the lock, runs, says how it ended.
Everything it says goes to daemon.log: whoever started it reads the end of that when it does not come up.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from moat.api.errors import MoatError
from moat.daemon.compose import run_daemon
from moat.daemon.hardening import harden
from moat.daemon.process import hold_lock
from moat.log import Redactor, log_to_file
from moat.paths import Home, private_folder

LOG_LIMIT_BYTES = 8 * 1024 * 1024

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon until it is asked to end; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m moat.daemon.main")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--foreground", action="store_true", help="write the log to standard error too")
    options = parser.parse_args(arguments)
    home = Home(options.home)
    os.environ["MOAT_HOME"] = str(home.root)  # runtimes mark what they make with it, and find it again by it
    harden()
    redactor = Redactor()
    file = home.daemon / "daemon.log"
    private_folder(home.daemon)
    lock = hold_lock(home)
    if lock is None:
        logging.basicConfig(stream=sys.stderr)
        log.error("a daemon of %s lives already", home.root)
        return 1
    log_to_file(file, redactor, limit_bytes=LOG_LIMIT_BYTES, also=sys.stderr if options.foreground else None)
    return _run(home, redactor, lock)


def _run(home: Home, redactor: Redactor, lock: int) -> int:
    code = 0
    try:
        asyncio.run(run_daemon(home, redactor, lock))
    except* MoatError as refusals:
        code = 1
        for refusal in _flat(refusals):
            log.error("the daemon cannot go on", extra={"problem": refusal.problem, "hint": refusal.hint})
    except* Exception:  # the top of the process: the traceback belongs into the log
        code = 1
        log.exception("the daemon failed")
    return code


def _flat(group: BaseExceptionGroup[MoatError]) -> list[MoatError]:
    found: list[MoatError] = []
    for each in group.exceptions:
        found += _flat(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


if __name__ == "__main__":
    sys.exit(main())
