"""`moat completion`: what makes bash, zsh and fish complete moat's commands, options, and names of runs, grants, …

TAB ─▶ the script ─▶ `moat` with _MOAT_COMPLETE=zsh_complete ─▶ `answer` ─▶ commands, options, and what `known` finds

Reads only, and says nothing of what goes wrong: it would stand in the line that somebody is typing.
"""

from __future__ import annotations

import os
import sys

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from moat.api.errors import MoatError
from moat.cli.output import show

VARIABLE = "_MOAT_COMPLETE"  # as in `main`, which this does not load
_INSTALLING = {
    "bash": ("moat completion bash > ~/.local/share/bash-completion/completions/moat",
             "(that folder is read by the package bash-completion; without it, in ~/.bashrc:)",
             'eval "$(moat completion bash)"'),
    "zsh": ("mkdir -p ~/.zfunc && moat completion zsh > ~/.zfunc/_moat",
            "and in ~/.zshrc: fpath+=~/.zfunc; autoload -Uz compinit; compinit"),
    "fish": ("moat completion fish > ~/.config/fish/completions/moat.fish",),
}  # fmt: skip


class _Completer(ShellComplete):
    """What click leaves out, for each shell."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is typed, and that one. bash has `--name=value` in three words."""
        args, incomplete = super().get_completion_args()
        is_bash_split = args[-1:] == ["="]
        return args[:-1] if is_bash_split else args, incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return what fits. Of `--name=val`, a shell takes no other word for the same than one that begins so."""
        if "--" in args:  # a command of somebody else's: we know of its files, no more
            return [CompletionItem(incomplete, type="file")]
        items = super().get_completions(list(args), incomplete)
        name, equals, _ = incomplete.partition("=")
        is_joined = bool(equals) and name.startswith("--")
        return [CompletionItem(f"{name}={each.value}", each.type, each.help) for each in items] if is_joined else items


class _Bash(_Completer, BashComplete):
    """bash."""


class _Zsh(_Completer, ZshComplete):
    """zsh."""


class _Fish(_Completer, FishComplete):
    """fish. With a script of our own: click's (8.5) cuts descriptions at their first comma."""

    source_template = """\
function %(complete_func)s
    set -lx COMP_WORDS (commandline -cp | string collect)
    set -lx COMP_CWORD (commandline -ct | string collect)
    for line in (env %(complete_var)s=fish_complete %(prog_name)s)
        set -l parts (string split -m 1 "," -- $line)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


_SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def answer(command: click.Command, asked: str) -> int:
    """Answer a shell that asks, `zsh_complete` say; return the exit code. Standard error is closed for good."""
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 # as long as we run: a bug's traceback goes there too
    shell, _, what = asked.partition("_")
    if shell not in _SHELLS or what not in ("complete", "source"):
        return 1
    completer = _SHELLS[shell](command, {}, "moat", VARIABLE)
    try:
        click.echo(completer.complete() if what == "complete" else _script(completer))
    except (MoatError, click.ClickException, OSError, KeyError, ValueError):  # the last two: no shell asked
        return 1
    return 0


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete moat's commands, options, and names of runs, grants and the like.

    How it is installed stands at its beginning:

    \b
    bash: moat completion bash > ~/.local/share/bash-completion/completions/moat
    zsh:  moat completion zsh > ~/.zfunc/_moat       (with fpath+=~/.zfunc before compinit)
    fish: moat completion fish > ~/.config/fish/completions/moat.fish

    To try it in a shell that is open: eval "$(moat completion bash)", the same in zsh after compinit, and
    moat completion fish | source.
    """
    show(_script(_SHELLS[shell](ctx.find_root().command, {}, "moat", VARIABLE)))


def _script(completer: ShellComplete) -> str:
    """Return the script, with a word on how to install it. Its first line stays: zsh finds it by `#compdef`."""
    first, _, rest = completer.source().partition("\n")
    words = "\n".join(f"#   {line}" for line in _INSTALLING[completer.name])
    return (
        f"{first}\n# To install:\n{words}\n{rest}"
        if first.startswith("#")
        else (f"# To install:\n{words}\n{first}\n{rest}")
    )
