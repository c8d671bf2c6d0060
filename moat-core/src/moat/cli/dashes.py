"""Command lines that end in somebody else's command: everything after the first `--` is that, untouched."""

from __future__ import annotations

import click

_COMMAND = "moat.command"


class DashedCommand(click.Command):
    """A command line cut at its first `--`: click would drop it, and what follows is not ours to read."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before `--`; keep the rest for `after_dashes`."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[_COMMAND] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the usage line, with the command that click does not know of."""
        words = [param.metavar for param in self.params if isinstance(param, click.Argument)]
        return [*(word for word in words if word), "[OPTIONS]", "--", "COMMAND..."]


def after_dashes(ctx: click.Context) -> tuple[str, ...] | None:
    """Return what stands after the first `--`, None where there is none."""
    found: tuple[str, ...] | None = ctx.meta.get(_COMMAND)
    return found
