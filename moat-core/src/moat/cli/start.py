"""The program: a plain `moat run` begins at once; every other command line is for `main`, where click reads it.

Ends as `main` does: an error of ours with its hint and exit code, 130 after Ctrl-C, quietly where nobody listens any
more.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from typing import TYPE_CHECKING

from moat.cli.run_options import read

if TYPE_CHECKING:
    from moat.cli.run_options import Typed

GARBAGE = 50_000  # objects between two looks for cycles: imports make as many, and no garbage
COMPLETE = "_MOAT_COMPLETE"  # a shell that asks what could be typed; the name that click derives from the program's
_CTRL_C = 130


def main() -> None:
    """Run the command line of this process and exit."""
    gc.set_threshold(GARBAGE)
    typed = None if COMPLETE in os.environ else read(sys.argv[1:], os.environ)
    if typed is None:
        from moat.cli import main as whole

        whole.main()
    else:
        leave(run(typed))


def run(typed: Typed) -> int:
    """Do a plain `moat run`, and return the exit code."""
    speak_always()  # and `hush_logs`, as soon as the run's gate is started
    from moat.api.errors import MoatError
    from moat.cli.run_start import start

    try:
        code = start(typed)
        sys.stdout.flush()
    except MoatError as failure:
        from moat.cli import output

        output.show_error(failure)
        return failure.exit_code
    except (KeyboardInterrupt, EOFError):
        from moat.cli import output

        output.say("")  # as click does: the terminal shows ^C in this line
        return _CTRL_C
    except BrokenPipeError:
        return swallow_output()
    return code


def speak_always() -> None:
    """Let no closed stream and no character that a terminal cannot show end a command.

    A closed descriptor is opened on /dev/null: otherwise the next file of ours would take its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 # stays open as long as we run

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def hush_logs() -> None:
    """Let no log line reach the user."""
    import logging

    logging.getLogger("moat").addHandler(logging.NullHandler())


def leave(code: int) -> None:
    """Exit at once, having done all that Python does at its end but to take itself apart: that is a tenth of a run.

    It is done as well where somebody wants to see that too, or where other threads have something to finish.
    """
    if threading.active_count() == 1 and not sys.warnoptions and not sys.flags.dev_mode:
        atexit._run_exitfuncs()  # there is no public name for it
        if _flushed():
            os._exit(code)
    sys.exit(code)


def swallow_output() -> int:
    """Whoever read our output is gone (`moat list | head -1`): let the interpreter's own last flush go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(null, stream.fileno())
    return 1  # as click does when it meets the broken pipe first


def _flushed() -> bool:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # a full disk, say: what Python does then is its affair
            return False
    return True
