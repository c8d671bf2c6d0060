"""`moat`, as click reads it: finds the command, loads only what it needs, and turns every outcome into an exit code.

    MoatError      error: … and hint: … on standard error, its exit code     Ctrl-C        130, quietly
    wrong usage    the same, exit code 2                                     broken pipe   1, quietly
    anything else  is a bug and gets its traceback

Commands are a table of names, so that `moat --help` imports none of them. Plugins are asked for commands only when the
commands are listed or one is not in the table.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from moat import __version__
from moat.api.errors import MoatError, PluginError, UsageError
from moat.cli import output
from moat.cli.start import COMPLETE, hush_logs, leave, speak_always, swallow_output

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from moat.api.agents import AgentProvider
    from moat.plugins.manager import Plugins


class Lazy(NamedTuple):
    """A command by name. target: module:attribute. summary: its line in `moat --help`."""

    target: str
    summary: str


COMMANDS = {
    "run": Lazy("moat.cli.run:run", "Run a command in a sealed sandbox."),
    "init": Lazy("moat.cli.init:init", "Write a moat.yaml to begin with."),
    "attach": Lazy("moat.cli.reach:attach", "Look at a run that goes on by itself, and type into it."),
    "exec": Lazy("moat.cli.exec:exec_", "Start another command in a live run, under the same seal."),
    "join": Lazy("moat.cli.join:join", "Start an agent in a live run, beside what works there."),
    "logs": Lazy("moat.cli.console:logs", "Show what a run printed."),
    "wait": Lazy("moat.cli.reach:wait", "Wait until runs have ended."),
    "stop": Lazy("moat.cli.reach:stop", "Stop runs."),
    "status": Lazy("moat.cli.status:status", "Show what runs, on which grants, and how long those last."),
    "sessions": Lazy("moat.cli.sessions:sessions", "List sessions of agents in a workspace, to go on with."),
    "list": Lazy("moat.cli.runs:list_runs", "List runs."),
    "route": Lazy("moat.cli.route:route", "Reach ports of a run by name, from this machine."),
    "open": Lazy("moat.cli.open:open_", "Open a port of a run in the browser."),
    "trace": Lazy("moat.cli.trace:trace", "Show what a run did on the network."),
    "audit": Lazy("moat.cli.audit:audit", "Show what was done with whose authority, and verify it."),
    "grant": Lazy("moat.cli.grant:grant", "Store a credential, and list, show or revoke those stored."),
    "proxy": Lazy("moat.cli.proxy:proxy", "Start, stop or look at the daemon."),
    "diff": Lazy("moat.cli.result:diff", "Show what a run changed in its copy of the workspace."),
    "apply": Lazy("moat.cli.result:apply", "Take what a run changed in its copy over into the workspace."),
    "image": Lazy("moat.cli.image:image", "Build, list and remove the images of dependencies."),
    "wt": Lazy("moat.cli.wt:wt", "Run in a git worktree of a branch, which is made if need be."),
    "snapshot": Lazy("moat.cli.snapshot:snapshot", "Keep a workspace's files as they are, and bring them back."),
    "volume": Lazy("moat.cli.volume:volume", "List and remove what runs keep from one to the next."),
    "destroy": Lazy("moat.cli.clean:destroy", "Forget runs that have ended: what they printed and did."),
    "clean": Lazy("moat.cli.clean:clean", "Remove old runs, and whatever was left behind."),
    "doctor": Lazy("moat.cli.doctor:doctor", "Check whether this machine can hold sealed runs."),
    "demo": Lazy("moat.cli.demo:demo", "Show in seconds, on this machine alone, what moat does."),
    "plugins": Lazy("moat.cli.plugins:plugins", "List plugins, what they offer, and which are broken; begin one."),
    "completion": Lazy("moat.cli.completion:completion", "Print what makes a shell complete moat's commands."),
    "uninstall": Lazy("moat.cli.uninstall:uninstall", "Remove all that moat keeps: credentials, keys, runs."),
}
_HELP_WANTED: tuple[type[Exception], ...] = (  # click 8.1 prints the help itself
    (click.exceptions.NoArgsIsHelpError,) if hasattr(click.exceptions, "NoArgsIsHelpError") else ()
)
_HELP = {"help_option_names": ["-h", "--help"]}


class Commands(click.Group):
    """The built-in commands by table, those of plugins by hook."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every name; a plugin's mistake does not hide the rest."""
        return [name for name, _ in self._rows()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if lazy := COMMANDS.get(cmd_name):
            module, _, attribute = lazy.target.partition(":")
            command = getattr(importlib.import_module(module), attribute)
            assert isinstance(command, click.Command)  # noqa: S101 # the table is ours
            return command
        plugins = _plugins()
        agents = _agents(plugins)
        if agent := agents.get(cmd_name):
            return _of_agent(agent)
        return _of_plugins(plugins, agents).get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that args begin with. Raises UsageError, suggesting the nearest, when there is none."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            raise UsageError(f"there is no command {name!r}", hint=f"run: moat {near[0] if near else '--help'}")
        return name, command, args[1:]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin so, without importing the built-in ones."""
        from click.shell_completion import CompletionItem

        options = click.Command.shell_complete(self, ctx, incomplete)
        found = ((name, summary) for name, summary in self._rows() if name.startswith(incomplete))
        return options + [CompletionItem(name, help=summary) for name, summary in found]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing the built-in ones."""
        with formatter.section("Commands"):
            formatter.write_dl(self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        rows = [(name, lazy.summary) for name, lazy in COMMANDS.items()]
        try:
            return rows + sorted(_summaries().items())
        except MoatError as failure:
            output.warn(failure.problem)
            return rows


@click.group(cls=Commands, context_settings=_HELP)
@click.version_option(__version__, prog_name="moat", message="%(prog)s %(version)s")
def cli() -> None:
    """Run agents in sealed sandboxes that hold no credentials and have no way out but the proxy."""


def main() -> None:
    """Run the command line of this process and exit."""
    leave(run(sys.argv[1:]) if (asked := os.environ.get(COMPLETE)) is None else _complete(asked))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. What a command returns as an int is the exit code."""
    speak_always()
    hush_logs()
    try:
        code = _performed(arguments)
    except MoatError as failure:
        output.show_error(failure)
        return failure.exit_code
    except _HELP_WANTED as failure:
        output.say(str(failure))
        return UsageError.exit_code
    except click.ClickException as failure:
        output.show_error(_as_usage_error(failure, arguments))
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return swallow_output()
    return code if isinstance(code, int) else 0


def _performed(arguments: Sequence[str]) -> object:
    """Run one command line and return what its command returns.

    Raises what that raises, and MoatError where standard output does not take what click says by itself (help).
    """
    try:
        code = cli.main(list(arguments), prog_name="moat", standalone_mode=False)
    except OSError as failure:
        if _is_click_s(failure):
            with output.written():
                raise
        raise
    with output.written():  # what is still to be flushed
        pass
    return code


def _is_click_s(failure: OSError) -> bool:
    """Whether it was raised where click prints, and not in what a command does."""
    trace = failure.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == "click.utils"


def _complete(asked: str) -> int:
    from moat.cli.completion import answer

    return answer(cli, asked)


def _summaries() -> dict[str, str]:
    """Return what plugins add to the commands, each with its line of help. Raises PluginError."""
    plugins = _plugins()
    agents = _agents(plugins)
    added = {name: command.get_short_help_str() for name, command in _of_plugins(plugins, agents).items()}
    return added | {name: f"Run {agent.summary} in a sealed sandbox." for name, agent in agents.items()}


def _plugins() -> Plugins:
    from moat.plugins.manager import Plugins

    return Plugins.load()


def _of_plugins(plugins: Plugins, agents: Mapping[str, AgentProvider]) -> dict[str, click.Command]:
    """Return the commands that plugins add. Raises PluginError when one takes a name that is taken."""
    taken = {*COMMANDS, *agents}
    group = click.Group(commands={name: click.Command(name) for name in taken})
    plugins.register_commands(group)
    return {name: command for name, command in group.commands.items() if name not in taken}


def _agents(plugins: Plugins) -> dict[str, AgentProvider]:
    """Return the agents, which are commands too. Raises PluginError when one is called like a command of ours."""
    offers = plugins.agent_offers()
    for offer in offers:
        if (name := offer.value.name) in COMMANDS:
            problem = f"the agent {name!r} of {offer.plugin.distribution} is called like a command of moat's"
            raise PluginError(problem, hint=f"run: pip uninstall {offer.plugin.distribution}")
    return {offer.value.name: offer.value for offer in offers}


def _of_agent(agent: AgentProvider) -> click.Command:
    from moat.cli.agents import command_of

    return command_of(agent)


def _as_usage_error(failure: click.ClickException, arguments: Sequence[str]) -> UsageError:
    """Return the same as an error of ours. Click does not say whose option lacks its value; the first word does."""
    message = failure.format_message().rstrip(".")
    context = failure.ctx if isinstance(failure, click.UsageError) else None
    path = (
        context.command_path
        if context is not None
        else " ".join(["moat", *(each for each in arguments[:1] if each[:1] != "-")])
    )
    return UsageError(message[:1].lower() + message[1:], hint=f"run: {path} --help")
