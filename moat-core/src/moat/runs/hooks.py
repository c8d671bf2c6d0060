"""Puts `hooks.pre_run` before a run's command: one shell that runs each hook and then becomes the command. Pure.

The hooks have what the command has, its seal, variables, folder and user, but not its input. One that fails ends the
run with its exit code, and says so on standard error. Hooks travel as arguments, so nothing in them is quoted.
"""

from __future__ import annotations

from collections.abc import Sequence

_SHELL = "/bin/sh"
_LABEL_CHARS = 100
# Names that no variable of the run's has: what is assigned to one that is exported would reach the command.
_SCRIPT = """\
_moat_all=$1 _moat_number=0
shift
while [ "$_moat_number" -lt "$_moat_all" ]; do
  _moat_number=$((_moat_number + 1))
  /bin/sh -ec "$1" </dev/null && { shift 2; continue; }
  _moat_code=$?
  printf 'moat: hooks.pre_run %s of %s ended with %s, so the command was not run: %s\\n' \\
    "$_moat_number" "$_moat_all" "$_moat_code" "$2" >&2
  exit "$_moat_code"
done
exec "$@"
"""


def after_hooks(hooks: Sequence[str], command: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that runs hooks, shell each, and then command."""
    if not hooks:
        return tuple(command)
    told = (part for hook in hooks for part in (hook, label(hook)))
    return (_SHELL, "-c", _SCRIPT, "moat", str(len(hooks)), *told, *command)


def label(hook: str) -> str:
    """Return the first line of a hook that says something, for people."""
    line = next((line.strip() for line in hook.splitlines() if line.strip()), "")
    text = "".join(character if character.isprintable() else "?" for character in line)
    return text if len(text) <= _LABEL_CHARS else f"{text[: _LABEL_CHARS - 1]}…"
