"""`moat completion`: what a shell needs to complete moat's commands, options and runs."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from moat.cli.output import show

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_VARIABLE = "_MOAT_COMPLETE"  # the name that click derives from the program's


def complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of runs that begin so, newest first, each once."""
    from moat.paths import find_home
    from moat.trace.store import RunStore

    named = (info.name for info in RunStore(find_home()).list())
    return [name for name in dict.fromkeys(named) if name.startswith(incomplete)]


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion of a shell.

    \b
    bash: moat completion bash > ~/.local/share/bash-completion/completions/moat
    zsh:  moat completion zsh > ~/.zfunc/_moat       (with fpath+=~/.zfunc before compinit)
    fish: moat completion fish > ~/.config/fish/completions/moat.fish
    """
    show(_SHELLS[shell](ctx.find_root().command, {}, "moat", _VARIABLE).source())
