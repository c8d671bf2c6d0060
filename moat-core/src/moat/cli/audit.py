"""`moat audit`: what was done with whose authority, whether the record of it is whole, and a copy for somebody else.

moat audit [RUN]      moat audit verify [RUN|FILE]      moat audit export RUN -o FILE      moat audit key
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from moat.api.errors import DaemonError, MoatError, RunNotFound, StoreCorrupt, StoreLocked, UsageError
from moat.audit.bundle import Bundle, as_object, read_bundle, render, sealed_only, verify_bundle
from moat.audit.chain import ENDED, INSTALLATION, STARTED, Entry, Fault
from moat.audit.heads import public_key_of, read
from moat.audit.reading import AuditReader
from moat.audit.verify import Pin, Report, verify_log
from moat.cli.audit_words import TITLES, as_json, as_rows, details, remarks, verdict
from moat.cli.known import complete_runs
from moat.cli.output import say, show, show_json, show_table, warn
from moat.daemon.audit_key import AuditKeys
from moat.daemon.client import DaemonClient
from moat.ids import RUN_ID
from moat.paths import Home, find_home
from moat.trace.store import RunStore

POLL_S = 0.3
_SQLITE = b"SQLite format 3\0"


class Audit(click.Group):
    """`verify`, `export` and `key`; everything else is a run to be shown."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what is no command of ours for the arguments of `show`."""
        is_ours = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if is_ours else ["show", *args])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one of our own, or `show` for the name of a run."""
        return super().get_command(ctx, cmd_name) or self.commands["show"]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete runs as well as commands."""
        runs = complete_runs(ctx, ctx.command.params[0] if ctx.command.params else click.Option(["-x"]), incomplete)
        return [*super().shell_complete(ctx, incomplete), *map(CompletionItem, runs)]


@click.group("audit", cls=Audit)
def audit() -> None:
    """Show what was done with whose authority: moat audit [RUN].

    Every entry holds the hash of the one before it, and the ends are signed: `moat audit verify` says whether
    anything was changed, removed or put in since.
    """


@audit.command("show")
@click.argument("run", default="", shell_complete=complete_runs)
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, till the run ends.")
@click.option("--json", "in_json", is_flag=True, help="One JSON array, every field; with -f an object a line.")
def show_entries(run: str, follow: bool, in_json: bool) -> None:
    """Show a run's entries (`moat audit RUN`); without RUN the installation's: grants, approvals, daemons, runs."""
    home = find_home()
    with contextlib.suppress(DaemonError):
        DaemonClient(home).seal()  # which enters what is still in its memory
    with AuditReader(home.audit) as reader:
        chain = found_chain(reader, home, run)
        entries = list(reader.entries(chain))
    if follow:
        _follow(home, chain, entries, in_json=in_json)
    elif in_json:
        show_json([as_object(entry) for entry in entries])
    else:
        show_table(TITLES, as_rows(entries))
        say(f"moat: {len(entries)} entries of {chain} · whether they are whole: moat audit verify {run}".rstrip())


@audit.command("verify")
@click.argument("what", default="", metavar="[RUN|FILE]", shell_complete=complete_runs)
@click.option(
    "--key", "key", default="", metavar="HEX", help="The public key that must have signed; see moat audit key."
)
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
def verify(what: str, key: str, in_json: bool) -> int:
    """Verify the whole log, a run's part of it, or a bundle of `moat audit export`. Exit code 1: not whole.

    What is signed must be signed by this installation's key, which lies in the keyring, or by that of --key.
    """
    home = find_home()
    checked = checked_key(key)
    try:
        pin = pinned(home, checked)
    except StoreCorrupt as broken:
        if not in_json:
            raise
        show_json(as_json(_unreadable(INSTALLATION, broken), checked))
        return 1
    with contextlib.suppress(DaemonError):
        DaemonClient(home).seal()
    is_read = True
    try:
        report, signer, is_own = _verified(home, what, pin)
    except (UsageError, RunNotFound):
        raise
    except MoatError as broken:  # nothing that could be read: for programs too
        report, signer, is_own = _unreadable(what or INSTALLATION, broken), pin.public_key, False
        is_read = False
    if in_json:
        show_json(as_json(report, signer))
    else:
        _tell(home, report, signer, is_own=is_own, is_read=is_read)
    return 0 if report.is_whole else 1


def _tell(home: Home, report: Report, signer: str, *, is_own: bool, is_read: bool) -> None:
    """Print a report for people. is_own: it is of this installation's log. is_read: there was something to compare."""
    show(verdict(report, signer))
    for fault in report.faults[1:]:
        show(f"  {fault.chain}, entry {fault.seq}: {fault.problem}")
    for remark in remarks(report, is_served=not is_own or _is_served(home)) if is_read else ():
        warn(remark)
    place = AuditKeys(home, os.environ).place
    if is_own and place is not None and place.lives_in == "file":
        warn("there was no keyring: the key lies in a file beside the log, and who can write there can sign")


@audit.command("export")
@click.argument("run", shell_complete=complete_runs)
@click.option("-o", "--output", "file", required=True, metavar="FILE", help="Where to; - for standard output.")
def export(run: str, file: str) -> None:
    """Write a run's entries with their signed head to a file that is verified anywhere, without moat's state."""
    home = find_home()
    with contextlib.suppress(DaemonError):
        DaemonClient(home).seal()
    with AuditReader(home.audit) as reader:
        chain = found_chain(reader, home, run)
        signed, entries = reader.head(chain), list(reader.entries(chain))
    key = pinned(home, "").public_key
    if signed is None or not key:
        raise MoatError(f"nobody has signed the entries of {chain} yet", hint="unlock the keyring, then try again")
    data = render(Bundle(chain, key, signed, sealed_only(entries, read(signed).tip.seq)))
    if file == "-":
        show(data.decode().rstrip("\n"))
        return
    try:
        Path(file).write_bytes(data)
    except OSError as failure:
        raise UsageError(f"{file} cannot be written: {failure.strerror}") from None
    say(f"moat: {chain} was written to {file}; who verifies it needs the key, told another way: {key}")


@audit.command("key")
def show_key() -> None:
    """Print the public key that signs this installation's audit."""
    if not (key := pinned(find_home(), "").public_key):
        raise MoatError("nothing was signed yet", hint="run: moat proxy start")
    show(key)


def found_chain(reader: AuditReader, home: Home, reference: str) -> str:
    """Return the chain of a run, also of one that was destroyed; the installation's for none. Raises RunNotFound."""
    if not reference:
        return INSTALLATION
    chains = reader.chains()
    with contextlib.suppress(RunNotFound):
        if (run_id := RunStore(home).find(reference).run_id) in chains:
            return run_id
    if reference in chains:
        return reference
    known = [chain for chain in chains if RUN_ID.fullmatch(chain)]
    found = [chain for chain in known if chain.startswith(reference) or _name(reader, chain) == reference]
    if len(found) != 1:
        problem = (
            f"{reference!r} means several runs: {', '.join(found)}" if found else f"the audit has no run {reference!r}"
        )
        raise RunNotFound(problem, hint="run: moat audit")
    return found[0]


def pinned(home: Home, key: str) -> Pin:
    """Return what this machine knows apart from the log. key: one that was given instead. Raises StoreCorrupt."""
    keys = AuditKeys(home, os.environ)
    try:
        secret = keys.look()
    except StoreLocked as failure:
        warn(f"{failure.problem}; what it remembers of the log is not compared")
        place = keys.place
        return Pin(key or (place.public_key if place is not None else ""))
    if secret is None:
        return Pin(key)
    return Pin(key or public_key_of(secret.seed), secret.anchor)


def checked_key(text: str) -> str:
    """Return a public key as it is written here. Raises UsageError."""
    if text and (len(text) != 64 or not all(each in "0123456789abcdef" for each in text.lower())):
        raise UsageError("--key is no public key", hint="it has 64 characters, as moat audit key prints them")
    return text.lower()


def _unreadable(what: str, failure: MoatError) -> Report:
    return Report((Fault(what, 0, failure.problem),))


def _verified(home: Home, what: str, pin: Pin) -> tuple[Report, str, bool]:
    """Return what is to be said, whose signature counts, and whether it is this installation's own log."""
    file = Path(what)
    if what and file.is_file():
        return (*_of_file(file, pin), False)
    if "/" in what or file.suffix:
        raise UsageError(f"there is no file {what}", hint="name a run, or a file of moat audit export")
    if not home.audit.exists() and pin.anchor is not None:
        return verify_log({}, [], pin), pin.public_key, True
    with AuditReader(home.audit) as reader:
        report = reader.verify(pin)
        if what:
            chain = found_chain(reader, home, what)
            faults = tuple(fault for fault in report.faults if fault.chain == chain)
            report = replace(report, faults=faults, chains=1, entries=reader.tip(chain).seq)
    return report, pin.public_key, True


def _of_file(file: Path, pin: Pin) -> tuple[Report, str]:
    try:
        with file.open("rb") as stream:
            is_log = stream.read(len(_SQLITE)) == _SQLITE
        if is_log:
            with AuditReader(file) as reader:
                return reader.verify(pin), pin.public_key
        bundle = read_bundle(file.read_bytes())
    except OSError as failure:
        raise UsageError(f"{file} cannot be read: {failure.strerror}") from None
    return verify_bundle(bundle, pin), pin.public_key or bundle.public_key


def _follow(home: Home, chain: str, entries: Sequence[Entry], *, in_json: bool) -> None:
    for entry in coming(home, chain, entries):
        if in_json:
            import json

            show(json.dumps(as_object(entry)))
        else:
            show(f"{entry.seq:>4}  {entry.at[:19].replace('T', ' ')}  {entry.kind:<14}  {details(entry)}")


def coming(home: Home, chain: str, entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield entries, and those that are added to their chain: a run's till its end, the installation's for ever."""
    seq = 0
    while True:
        for entry in entries:
            seq = entry.seq
            yield entry
            if entry.kind == ENDED and chain != INSTALLATION:
                return
        time.sleep(POLL_S)
        with AuditReader(home.audit) as reader:
            entries = list(reader.entries(chain, seq))


def _name(reader: AuditReader, chain: str) -> str:
    from moat.audit.canonical import parsed

    first = next(reader.entries(chain), None)
    if first is None or first.kind != STARTED:
        return ""
    with contextlib.suppress(ValueError, AttributeError):
        return str(parsed(first.facts).get("name", ""))
    return ""


def _is_served(home: Home) -> bool:
    try:
        DaemonClient(home).health()
    except DaemonError:
        return False
    return True
