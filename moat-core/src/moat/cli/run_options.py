"""Reads the command line of a plain `moat run` without click, whose import takes longer than all that this loads.

Only the usual spellings are read: whole names, a value as the next word or after `=`, a command after `--`. For all
else, and for every mistake, the answer is None, and click (`run.py`) reads it and says what is wrong. What is read
here is what click would read: a test compares the two, and these tables with its options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

ONE = {  # option → name of the parameter, the variable that stands for it where it is not given
    "--profile": ("profile", "MOAT_PROFILE"), "--runtime": ("runtime", "MOAT_RUNTIME"),
    "--image": ("image", "MOAT_IMAGE"), "--name": ("name", ""), "--worktree": ("branch", ""), "--from": ("start", ""),
    "--snapshot-every": ("every", ""), "--policy": ("policy", ""),
}  # fmt: skip
MANY = {
    "--grant": "grants", "-e": "variables", "--env": "variables", "--mount": "mounts", "--volume": "volumes",
    "--allow-host": "allowed", "--rule": "rules", "--host-port": "host_ports", "--service": "services",
    "--exclude": "excluded",
}  # fmt: skip
FLAGS = {
    "--allow-socket": ("allow_sockets", True), "--copy": ("on_a_copy", True), "--snapshot": ("snapshot", True),
    "--no-snapshot": ("snapshot", False), "-d": ("detached", True), "--detach": ("detached", True), "-t": ("tty", True),
    "-T": ("tty", False), "--tty": ("tty", True), "--no-tty": ("tty", False), "-y": ("yes", True),
    "--yes": ("yes", True), "--ignore-file": ("ignore_file", True), "--dry-run": ("dry_run", True),
    "--trace-bodies": ("trace_bodies", True), "--json": ("in_json", True),
}  # fmt: skip
UNSAID = ("policy", "snapshot", "tty")  # None where nothing is said; other flags are False, other texts ""
POLICIES = ("permissive", "strict")


class Typed(NamedTuple):
    """What was typed. command: what stands after `--`, and is never empty. options: by the names of `moat run`'s."""

    words: tuple[str, ...]
    command: tuple[str, ...]
    options: Mapping[str, Any]


def read(arguments: Sequence[str], env: Mapping[str, str]) -> Typed | None:
    """Return what a plain `moat run` says, None where click is to read it. arguments: those of moat."""
    if arguments[:1] != ["run"] or "--" not in arguments:
        return None
    at = arguments.index("--")
    command = tuple(arguments[at + 1 :])
    options = _unsaid(env)
    words: list[str] = []
    rest = iter(arguments[1:at])
    for word in rest:
        if not word.startswith("-"):
            words.append(word)
        elif not _took(word, rest, options):
            return None
    if not command or options["policy"] not in (None, *POLICIES):
        return None
    return Typed(tuple(words), command, options | {name: tuple(options[name]) for name in MANY.values()})


def _unsaid(env: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of a command line that has none."""
    options: dict[str, Any] = {name: False for name, _ in FLAGS.values()}
    options |= {name: env.get(variable, "") if variable else "" for name, variable in ONE.values()}
    options |= {name: [] for name in MANY.values()}
    return options | dict.fromkeys(UNSAID)


def _took(word: str, rest: Iterator[str], options: dict[str, Any]) -> bool:
    """Note an option, with its value; return whether it is one that is read here."""
    if word in FLAGS:
        name, options[name] = FLAGS[word]  # in this order: the name is there when its value is set
        return True
    name, equals, value = word.partition("=")
    if equals and not name.startswith("--"):
        return False
    if name not in ONE and name not in MANY:
        return False
    given = value if equals else next(rest, None)
    if given is None:
        return False
    if name in MANY:
        options[MANY[name]].append(given)
    else:
        options[ONE[name][0]] = given
    return True
