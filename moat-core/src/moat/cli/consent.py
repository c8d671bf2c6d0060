"""Asks the user whether a moat.yaml gets what it wants, and takes nothing but a clear yes for one."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Mapping

from moat.api.errors import UsageError
from moat.cli.output import say, warn
from moat.paths import UNWRITABLE, Home
from moat.runs.approvals import Question, approve, is_approved
from moat.runs.wishes import one_line


def settle(question: Question, home: Home, *, is_given: bool, env: Mapping[str, str]) -> None:
    """Return when the user agrees: now, before, or by is_given (--yes). Raises UsageError otherwise."""
    if not question.wishes or is_approved(home, question):
        return
    path = one_line(str(question.checkout.path))
    say(f"moat: {path} asks for what reaches beyond the sandbox. It wants to")
    for number, wish in enumerate(question.wishes, 1):
        say(f"  {number}. {wish}")
    if not is_given:
        if not _can_ask(env):
            hint = "if you want all of that, say it again with: moat run --yes; to run without the file: --ignore-file"
            raise UsageError(f"{path} needs your yes, and nobody can be asked here", hint=hint)
        if not _says_yes(f"Grant it {_counted(len(question.wishes))}? [y/N] "):
            raise UsageError("you did not agree; nothing was run", hint="to run without the file: --ignore-file")
    try:
        approve(home, question)
    except UNWRITABLE as failure:
        warn(f"your answer cannot be remembered: {failure}")
    _note(question, home)


def _note(question: Question, home: Home) -> None:
    """Have the audit hold the yes."""
    from moat.daemon.audit_notes import tell

    facts = {"file": question.subject["path"], "sha256": question.subject["sha256"], "to": "; ".join(question.wishes)}
    if problem := tell(home, "approved", facts):
        warn(f"the audit does not have this: {problem}")


def _counted(number: int) -> str:
    return "this" if number == 1 else f"all {number}"


def _can_ask(env: Mapping[str, str]) -> bool:
    return env.get("MOAT_NO_PROMPT", "") in ("", "0") and sys.stdin.isatty() and sys.stderr.isatty()


def _says_yes(question: str) -> bool:
    """Ask on the terminal. What was typed before the question was seen is no answer to it."""
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    sys.stderr.write(question)
    sys.stderr.flush()
    answer = bytearray()
    while (byte := os.read(sys.stdin.fileno(), 1)) not in (b"\n", b""):  # and nothing of what is for the command
        answer += byte
    return bytes(answer).strip().lower() in (b"y", b"yes")
