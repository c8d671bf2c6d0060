"""Registers a run, and has its sandbox begin, while all is loaded that performs it: asyncio takes longer than that.

plan ─▶ register ─▶ Runtime.expect: the gate opens the door ─▶ files ─▶ Runtime.provide        in a thread
   └──▶ asyncio, `launch.py` ────────────────────────────────────────────────────────▶ launch
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from moat.api.errors import DaemonLeaving, DaemonUnreached, MoatError
from moat.api.runtimes import DoorTicket, Runtime, Stdio
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import patiently
from moat.daemon.protocol import RegisterResponse
from moat.paths import Home, private_folder, remove_tree
from moat.runs.attach import first_terminal
from moat.runs.blotting import Blotter, blotted, secrets_of
from moat.runs.plan import RunPlan
from moat.runs.plan_digest import digest, plan_text
from moat.runs.watched import Marks, marks_of

SWITCH_S = 0.0002  # who hears the daemon must not wait until a module is loaded, which takes milliseconds
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Registered:
    """A run that the daemon knows. text: its plan, as it was registered.

    is_taken: ending it is somebody's. let: lets signals through again, by which time launch must be able to undo all.
    container_id: what the daemon has been told of its sandbox, "" for nothing. marks: of the workspace, where the
    run's files are written and its runtime has been provided with them.
    """

    def __init__(self, answer: RegisterResponse, text: bytes) -> None:
        self.answer = answer
        self.text = text
        self.container_id = ""
        self.marks: Marks | None = None
        self.is_taken = False
        self.let: Callable[[], None] = lambda: None


def register(plan: RunPlan, home: Home, client: DaemonClient) -> Registered:
    """Register a run; a daemon that leaves just now is followed by the next. Raises what it refuses.

    Blocking, and not to be cancelled: half a registration would leave a run that nobody ends.
    """
    return patiently(home, client, lambda each: _registered(plan, each))


@contextlib.contextmanager
def registered_early(
    plan: RunPlan, home: Home, client: DaemonClient, runtime: Runtime, stdio: Stdio, beside: Callable[[], None]
) -> Iterator[Registered | None]:
    """Yield a run that is registered, and whose sandbox has begun where its runtime can; None for `register`.

    That is where more must be made before than files of ours, where output goes to a terminal, and where the daemon
    goes just now. beside: what is done meanwhile. Signals wait until they are let; a run that nobody takes is ended.
    Raises what the daemon refuses, and like Runtime.launch.
    """
    is_shown = first_terminal(stdio.stdin, stdio.stdout, stdio.stderr) is not None
    if plan.copied or plan.worktree or plan.volumes or is_shown:
        yield None
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    early = _Early(plan, home, client, runtime, stdio)

    def let() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        _at_once(early.begin, beside)
        if early.made is None:
            let()
        else:
            early.made.let = let
        yield early.made
    finally:
        let()
        early.undo()


def door_ticket(home: Home, registered: RegisterResponse) -> DoorTicket:
    """Return how the sandbox reaches the daemon: by its door, or by address and token where it has none."""
    if registered.door is not None:
        door = registered.door
        return DoorTicket(registered.run_id, Path(door.folder), door.nonce, places=door.places)
    url = f"http://moat:{registered.auth_token}@127.0.0.1:{registered.proxy_port}"
    return DoorTicket(registered.run_id, home.door(registered.run_id), "", url)


def write_files(folder: Path, files: Mapping[Path, str | bytes]) -> None:
    """Write the files that a run sees: readable by whoever the run is inside, reachable by nobody else outside."""
    private_folder(folder.parent)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o644)
        for parent in path.parents[: len(path.relative_to(folder).parts)]:
            parent.chmod(0o755)  # whatever the umask says


def make_folders(folders: Iterable[Path]) -> None:
    """Make the empty folders that a run sees instead of others."""
    for path in folders:
        path.mkdir(parents=True)
        path.chmod(0o755)


def removed(folder: Path) -> None:
    """Remove what was made by these two."""
    with contextlib.suppress(OSError):
        remove_tree(folder)


class _Early:
    """One run, as far as it comes without an event loop."""

    def __init__(self, plan: RunPlan, home: Home, client: DaemonClient, runtime: Runtime, stdio: Stdio) -> None:
        self.made: Registered | None = None
        self._plan = plan
        self._home = Home(home.root.resolve())  # as in the plan, whose paths are real ones
        self._client = client
        self._runtime = runtime
        self._stdio = stdio

    def begin(self) -> None:
        """Register the run, without starting a daemon, which would have our signals held for ever; have it begin."""
        try:
            made = self.made = _registered(self._plan, self._client)
        except (DaemonLeaving, DaemonUnreached):
            return
        ticket = door_ticket(self._home, made.answer)
        if not (container_id := self._runtime.expect(ticket)):
            return
        try:
            self._client.tell_container(made.answer.auth_token, container_id)
        except (DaemonLeaving, DaemonUnreached):
            return  # launch tells its successor
        made.container_id = container_id
        write_files(self._folder(made), self._plan.files)
        make_folders(self._plan.folders)
        marks = marks_of(self._plan.sandbox.mounts[0].source)
        self._runtime.provide(self._plan.sandbox, ticket, self._stdio)
        made.marks = marks

    def undo(self) -> None:
        """End a run that nobody has taken over. Its gate ends with `Runtime.begun`."""
        if self.made is not None and not self.made.is_taken:
            removed(self._folder(self.made))
            with contextlib.suppress(MoatError):
                self._client.end(self.made.answer.auth_token, None)

    def _folder(self, made: Registered) -> Path:
        return self._home.inside(made.answer.run_id)


def _registered(plan: RunPlan, client: DaemonClient) -> Registered:
    text = plan_text(plan)
    blotter = Blotter(secrets_of(plan))  # which the daemon does not know, unlike others
    command = tuple(blotted(word, blotter) for word in plan.registration.command)
    asked = replace(plan.registration, command=command, launcher_pid=os.getpid(), plan_sha256=digest(text))
    return Registered(client.register(asked), text)


def _at_once(first: Callable[[], None], second: Callable[[], None]) -> None:
    """Do both at once, and raise what the first raises. It is waited for in any case."""
    failures: list[BaseException] = []

    def do() -> None:
        try:
            first()
        except BaseException as failure:  # noqa: BLE001 # raised by who waits
            failures.append(failure)

    thread = threading.Thread(target=do, name="moat-register")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    thread.start()
    try:
        second()
    finally:
        thread.join()
        sys.setswitchinterval(interval)
    if failures:
        raise failures[0]
