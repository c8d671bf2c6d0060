"""Performs a plan and undoes it: every step pushes its undo before the next begins, whatever ends the run.

register ─▶ files of ours ─▶ sandbox (gate, door, probe) ─▶ told ─▶ command ─▶ exit code
   └ end       └ removed        └ closed                    undone from the right, also on Ctrl-C
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from moat.api.errors import MoatError
from moat.api.light import dataclass
from moat.api.runs import RunInfo
from moat.api.runtimes import Runtime, Sandbox
from moat.config.mounts import WORKSPACE
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import patiently
from moat.frames import Message
from moat.paths import UNWRITABLE, Home, private_folder, write_private
from moat.runs.attach import Attachment
from moat.runs.control import Control
from moat.runs.interrupt import Interrupts
from moat.runs.keep import is_live, keep_daemon
from moat.runs.plan import RunPlan
from moat.runs.registering import Registered, door_ticket, make_folders, register, removed, write_files
from moat.runs.watched import Marks, changes, marks_of, write_changes

if TYPE_CHECKING:
    from moat.api.runtimes import DoorTicket
    from moat.daemon.audit_notes import Kind
    from moat.daemon.protocol import RegisterResponse
    from moat.runs.console import Console
    from moat.runs.copies import WorkingCopy
    from moat.runs.repositories import OwnRepository

T = TypeVar("T")

_SIGNALLED = 128  # a shell's exit code for a command that a signal ended is 128 + its number


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. info: what the daemon wrote down, None when it could not be asked. changed: see `watched`."""

    exit_code: int
    info: RunInfo | None
    changed: tuple[str, ...] = ()


class Launch:
    """One run, from registration to its end. announce is called once it is sealed, before its output is carried.

    told: is called with lines about what the run waits for. early: the run, where it is registered already.
    """

    def __init__(
        self,
        plan: RunPlan,
        runtime: Runtime,
        client: DaemonClient,
        home: Home,
        announce: Callable[[Sandbox], None],
        control: Control | None = None,
        told: Callable[[str], None] = lambda _: None,
        early: Registered | None = None,
    ) -> None:
        self._plan = plan
        self._runtime = runtime
        self._client = client
        self._home = Home(home.root.resolve())  # as in the plan, whose paths are real ones
        self._announce = announce
        self._control = control or Control()
        self._tell = told
        self._early = early
        self._exit_code: int | None = None
        self._info: RunInfo | None = None
        self._changed: tuple[str, ...] = ()

    async def perform(self, attachment: Attachment | Console) -> Outcome:
        """Run the plan to its end, tell whoever listens how it ended, and leave nothing behind.

        Raises what the daemon refuses, and SandboxFailed when the run is not sealed or loses its gate. A signal before
        the command has started gives 128 + its number.
        """
        interrupts = Interrupts(attachment.resize)
        failure: Exception | None = None
        async with self._control.talking(interrupts.take):
            try:
                outcome = await self._performed(attachment, interrupts)
                last: Message = {"event": "ended", "code": outcome.exit_code, "changed": outcome.changed}
            except MoatError as refused:
                failure = refused  # raised below: the clients' group would wrap it
                last = {"event": "failed", "problem": refused.problem, "hint": refused.hint, "code": refused.exit_code}
            except Exception as bug:  # noqa: BLE001 # raised below
                failure, last = bug, {"event": "crashed", "traceback": traceback.format_exc()}
            await self._control.part(last)
        if failure is not None:
            raise failure
        return outcome

    async def _performed(self, attachment: Attachment | Console, interrupts: Interrupts) -> Outcome:
        try:
            with interrupts.watching():
                async with AsyncExitStack() as undo:
                    await self._steps(attachment, interrupts, undo)
        except asyncio.CancelledError:
            if interrupts.number is None:
                raise
            return Outcome(_SIGNALLED + interrupts.number, self._info)
        return Outcome(self._exit_code or 0, self._info, self._changed)

    async def _steps(self, attachment: Attachment | Console, interrupts: Interrupts, undo: AsyncExitStack) -> None:
        aside = await self._set_aside(undo)
        # Not in a thread: a registration that is cancelled half-way would leave a run that nobody ends.
        made = self._early or register(self._plan, self._home, self._client)
        registered, token = made.answer, made.answer.auth_token
        made.is_taken = True
        undo.push_async_callback(self._end, registered.run_id, token)
        own_folder = private_folder(self._home.run(registered.run_id))
        await undo.enter_async_context(self._control.serving(own_folder, self._noted))
        with contextlib.suppress(*UNWRITABLE):
            write_private(own_folder / "plan.json", made.text)

        marks = self._write_files(made, undo)
        if aside is not None:
            undo.callback(aside.finish)
        undo.enter_context(attachment)
        ticket = self._ticket(registered, own_folder, undo)

        async def created(container_id: str) -> None:
            if container_id == made.container_id:
                return
            await asyncio.to_thread(self._patiently, lambda client: client.tell_container(token, container_id))

        undo.callback(self._look_again, marks)
        made.let()
        sandbox = await self._runtime.launch(self._plan.sandbox, ticket, attachment.stdio, created)
        undo.push_async_callback(sandbox.close)

        self._announce(sandbox)
        self._control.sealed(sandbox.caveat, sandbox)
        attachment.begin()
        carrying = [] if isinstance(attachment, Attachment) else [attachment.carry()]
        self._exit_code = await interrupts.supervise(sandbox, self._kept(interrupts), *carrying, *self._snapshots())

    def _ticket(self, registered: RegisterResponse, own_folder: Path, undo: AsyncExitStack) -> DoorTicket:
        listen = partial(self._listen, registered.auth_token)
        ticket = replace(door_ticket(self._home, registered), listen=listen, told=self._told)
        if not self._plan.sandbox.services:
            return ticket
        from moat.runs.service_logs import ServiceLogs

        return replace(ticket, printed=undo.enter_context(ServiceLogs(own_folder, self._plan)).write)

    def _write_files(self, made: Registered, undo: AsyncExitStack) -> Marks:
        """Write what the run sees of ours, if that is not there already; return the marks of its workspace."""
        folder = self._home.inside(made.answer.run_id)
        undo.callback(removed, folder)
        if made.marks is not None:
            return made.marks
        write_files(folder, self._plan.files)
        make_folders(self._plan.folders)
        if self._plan.volumes:
            self._make_volumes()
        return marks_of(self._workspace)

    async def _noted(self, kind: Kind, facts: Mapping[str, str]) -> None:
        """Have the audit hold who else came to the run. What it cannot is left to the next daemon."""
        from moat.daemon.audit_notes import tell

        await asyncio.to_thread(tell, self._home, kind, facts, self._plan.registration.run_id)

    async def _set_aside(self, undo: AsyncExitStack) -> WorkingCopy | OwnRepository | None:
        """Make what the run has in the user's place: before it is registered, since a copy may take long."""
        aside = self._aside()
        if aside is not None:
            undo.callback(aside.discard)
            await aside.make()
        return aside

    def _aside(self) -> WorkingCopy | OwnRepository | None:
        run_id = self._plan.registration.run_id
        if self._plan.copied is not None:
            from moat.runs.copies import WorkingCopy

            return WorkingCopy(self._home, run_id, self._plan.copied, self._plan.left_out)
        if self._plan.worktree is not None:
            from moat.runs.repositories import OwnRepository

            return OwnRepository(self._home, run_id, self._plan.worktree)
        return None

    def _snapshots(self) -> list[Coroutine[object, object, None]]:
        """Return what keeps the workspace while the run works, where that is wanted."""
        if not self._plan.snapshot_every_s:
            return []
        from moat.runs.keeping import keep_snapshots

        every_s, name = self._plan.snapshot_every_s, self._plan.sandbox.name
        return [keep_snapshots(self._home, self._workspace, name, every_s)]

    def _make_volumes(self) -> None:
        from moat.runs.volumes import make_place, make_volumes

        make_volumes(self._home, Path(self._plan.registration.workspace), self._plan.volumes)
        for target in self._plan.volumes.values():
            if target.startswith(f"{WORKSPACE}/"):
                make_place(self._workspace, target.removeprefix(f"{WORKSPACE}/"))

    @property
    def _workspace(self) -> Path:
        return self._plan.sandbox.mounts[0].source

    def _look_again(self, before: Marks) -> None:
        """See, after everything inside has ended, which files that run by themselves are not as they were."""
        self._changed = changes(before, marks_of(self._workspace))
        if self._changed:
            with contextlib.suppress(*UNWRITABLE):
                write_changes(self._home, self._plan.registration.run_id, self._changed)

    async def _kept(self, interrupts: Interrupts) -> None:
        """Keep a daemon there. When the run was ended on purpose its gate ends the command; where none is, we do."""
        await keep_daemon(self._home, self._plan.registration.run_id)
        if not self._plan.registration.needs_door:
            interrupts.take(signal.SIGTERM)

    def _told(self, line: str) -> None:
        """Tell whoever waits for the run what is waited for."""
        self._tell(line)
        self._control.tell(line)

    async def _listen(self, token: str, address: str) -> str:
        """Have the daemon serve the run at an address, by token; return the proxy's URL."""
        asked = replace(
            self._plan.registration, auth_token=token, needs_door=False, listen_on=address, launcher_pid=os.getpid()
        )
        answer = await asyncio.to_thread(self._patiently, lambda client: client.register(asked))
        host = f"[{address}]" if ":" in address else address
        return f"http://moat:{token}@{host}:{answer.proxy_port}"

    async def _end(self, run_id: str, token: str) -> None:
        try:
            self._info = await asyncio.to_thread(self._ended, run_id, token)
        except MoatError:
            self._info = None  # the daemon is gone; its successor finds the door closed and ends the run itself

    def _ended(self, run_id: str, token: str) -> RunInfo:
        if not is_live(self._home, run_id):  # stopped with its daemon, on purpose: nobody is to start one for this
            return self._client.end(token, self._exit_code)
        return self._patiently(lambda client: client.end(token, self._exit_code))

    def _patiently(self, ask: Callable[[DaemonClient], T]) -> T:
        return patiently(self._home, self._client, ask)
