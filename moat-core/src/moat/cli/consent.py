"""Asks the user whether a moat.yaml gets what it wants, and takes nothing but a clear yes for one."""

from __future__ import annotations

import os
import shlex
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence

from moat.api.errors import UsageError
from moat.cli.output import say, warn
from moat.paths import UNWRITABLE, Home
from moat.runs.approvals import Question, approve, is_approved
from moat.runs.wishes import one_line

WORD_CHARS = 200  # of a word that is said again


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
            hint = f"if you want all of that: {with_yes(sys.argv[1:])}; to run without the file: --ignore-file"
            raise UsageError(f"{path} needs your yes, and nobody can be asked here", hint=hint)
        if not _says_yes(f"Grant it {_counted(len(question.wishes))}? [y/N] "):
            raise UsageError("you did not agree; nothing was run", hint="to run without the file: --ignore-file")
    try:
        approve(home, question)
    except UNWRITABLE as failure:
        warn(f"your answer cannot be remembered: {failure}")
    _note(question, home)


def with_yes(typed: Sequence[str]) -> str:
    """Return the command line that was typed, to be typed again with --yes.

    Values of variables are not repeated, since they may be secret, nor all of a long prompt.
    """
    at = typed.index("--") if "--" in typed else len(typed)
    before = [_short(word) for word in _without_values(typed[:at])]
    return " ".join(["moat", *before, "--yes", *map(_short, typed[at:])])


def _without_values(words: Sequence[str]) -> Iterator[str]:
    is_variable = False
    for word in words:
        head = next((each for each in ("--env=", "-e") if word.startswith(each) and word != each), "")
        if is_variable or head:
            yield head + word.removeprefix(head).partition("=")[0] + "=..."
        else:
            yield word
        is_variable = not is_variable and word in ("-e", "--env")


def _short(word: str) -> str:
    return one_line(shlex.quote(word if len(word) <= WORD_CHARS else f"{word[:WORD_CHARS]}..."))


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
