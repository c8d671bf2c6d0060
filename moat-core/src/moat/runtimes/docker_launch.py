"""Make a run's containers in order, each step with its undo, and hold them until the command's end.

    gate is created ─▶ started ─▶ its door is open ─────────────────────────────────┬─▶ created(id) ─▶ started
                   └─▶ command's container is created, joined to the gate's network ─▶ attached ┘

The command's container is made while the gate starts, which takes the engine longest, and starts when its door is open.

A failure or a cancellation at any point removes everything made so far. The gate's end stops the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import aiodocker

from moat.api.errors import MoatError, RuntimeUnavailable, SandboxFailed
from moat.api.runtimes import DoorTicket, Execution, Sandbox, SandboxSpec, Stdio
from moat.paths import find_home
from moat.runtimes import docker_exec, internal
from moat.runtimes.docker_config import (
    agent_container,
    container_name,
    gate_name,
    labels,
)
from moat.runtimes.docker_engine import (
    Attachment,
    create,
    remove,
    told_as,
    uninterrupted,
)
from moat.runtimes.docker_gate import Gate, create_gate, elsewhere_is_unreached
from moat.runtimes.docker_ready import has_image, user_of
from moat.runtimes.docker_service_log import ServiceLog
from moat.runtimes.docker_stdio import (
    Draining,
    feed,
    feed_keys,
    is_terminal_wanted,
    own_descriptors,
    set_up_terminal,
    write_all,
)
from moat.runtimes.docker_user import name_user
from moat.runtimes.engine import CONFLICT, NOT_FOUND, Engine
from moat.runtimes.gatelink import DoorUnreached
from moat.runtimes.mounts import check_mounts
from moat.runtimes.places import mounts_of
from moat.runtimes.seccomp import engine_profile
from moat.runtimes.unstartable import in_words

log = logging.getLogger(__name__)

KILLED = 128 + signal.SIGKILL

Created = Callable[[str], Awaitable[None]]


async def launch(
    spec: SandboxSpec,
    ticket: DoorTicket,
    stdio: Stdio,
    created: Created,
    *,
    has_door: bool,
    engine: type[Engine] = Engine,
) -> Sandbox:
    """Return the started sandbox. has_door: False goes straight to the fallback.

    Raises RuntimeUnavailable without the image, SandboxFailed for everything else; then nothing is left.
    """
    home = find_home()
    check_mounts(spec.mounts, home=home.root, ours=home.inside(spec.run_id), allow_sockets=spec.allow_sockets)
    async with contextlib.AsyncExitStack() as undo:
        docker = engine.open()
        undo.push_async_callback(docker.close)
        with _unwrapped():
            async with asyncio.TaskGroup() as group:
                user = group.create_task(user_of(docker))
                if not await has_image(docker, spec.image):
                    problem = f"{docker.title} has no image {spec.image}"
                    raise RuntimeUnavailable(problem, hint=docker.how_to_pull(spec.image))
        launching = _Launch(docker, spec, ticket, undo, user.result())
        sandbox = (await launching.beside_a_gate(stdio) if has_door else None) or await launching.alone(stdio)
        await launching.start(sandbox, created)
        sandbox.undo = undo.pop_all()
    return sandbox


class DockerSandbox(Sandbox):
    """A started container. Its streams are carried while somebody waits."""

    def __init__(self, docker: Engine, container_id: str, attachment: Attachment, stdio: Stdio) -> None:
        self._docker = docker
        self.container_id = container_id
        self._container = docker.containers.container(container_id)
        self._attachment = attachment
        self.stdio = stdio
        self.gate: Gate | None = None
        self.service_logs: list[ServiceLog] = []
        self.command = self.image = ""
        self.takes_keys = False
        self.names: tuple[str, ...] = ()  # the run's containers that may be removed at once
        self.undo = contextlib.AsyncExitStack()
        self._draining = Draining(attachment)

    async def wait(self) -> int:
        """Carry input and output until the command has ended; return its exit code."""
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._feed())]
                beside += [group.create_task(each.carry()) for each in self.service_logs]
                if self.gate is not None:
                    beside.append(group.create_task(self.gate.watch()))
                await self._draining.carry(self.stdio, lambda: group.create_task(self.signal(signal.SIGPIPE)))
                code = await self._exit_code()
                if code == KILLED and self.gate is not None:
                    await self.gate.check()  # the daemon stops a run whose gate is gone, and may have been faster
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as failures:
            await self._kill()
            lost, _ = failures.split(SandboxFailed)
            if lost is None:
                raise
            raise _first(lost) from None
        if self.gate is not None:
            await self.gate.close()  # it ends and removes itself while `close` removes the command's container
        return code

    async def signal(self, number: int) -> None:
        """Send a signal to the command; nothing happens when it has ended."""
        if number == signal.SIGKILL:
            self._draining.hurry()  # first: an engine that waits may not answer
        with told_as(self._docker, "signal the command"):
            is_here = self.gate is not None
            await _unless_ended(self._docker.signal(self.container_id, number, is_here=is_here))

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the run's terminal its size; nothing happens without one, or when the command has ended."""
        with told_as(self._docker, "resize the terminal"):
            await _unless_ended(self._container.resize(h=rows, w=columns))

    async def execute(self, argv: tuple[str, ...], stdio: Stdio, terminal: tuple[int, int] | None) -> Execution:
        """Start one more command in the container: the engine gives it the same seal, user, variables and folder."""
        if self.gate is None:
            problem = "this run has no door: a command that was started in it could not be stopped"
            raise SandboxFailed(problem, hint="use --runtime docker, with an engine on this machine")
        return await docker_exec.execute(type(self._docker), self.container_id, argv, stdio, terminal)

    async def close(self) -> None:
        """Remove the containers, whatever is left in them.

        The engine takes as long for two at once as for one. What it cannot remove the undo tries again, and tells.
        """
        await uninterrupted(self._removed())

    async def _removed(self) -> None:
        names, self.names = self.names, ()  # closed again, nothing is left to do, and nobody to ask
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(_tried(remove(self._docker, name)))
        await self.undo.aclose()

    async def _feed(self) -> None:
        if self.takes_keys:
            await feed_keys(self.stdio.stdin, self._attachment, self.signal)
        else:
            await feed(self.stdio.stdin, self._attachment)

    async def _exit_code(self) -> int:
        with told_as(self._docker, "tell the command's end"):
            result = await self._container.wait()
        absence = self._docker.absence(self._attachment.beginning)
        if absence is None:
            return int(result["StatusCode"])
        code, why = absence
        facts: dict[str, object] = {}
        with contextlib.suppress(SandboxFailed), told_as(self._docker, "tell of the image"):
            facts = await self._docker.facts_of(self.image)
        told = in_words(why, self.image, facts, os.uname().machine)
        with contextlib.suppress(OSError):
            await write_all(self.stdio.stderr, f"moat: cannot start {self.command}: {told}\n".encode())
        return code

    async def _kill(self) -> None:
        with contextlib.suppress(SandboxFailed):
            await self.signal(signal.SIGKILL)


class _Launch:
    """One launch: the steps, with what they share."""

    def __init__(
        self,
        docker: Engine,
        spec: SandboxSpec,
        ticket: DoorTicket,
        undo: contextlib.AsyncExitStack,
        user: str,
    ) -> None:
        self._docker = docker
        self._spec = spec
        self._ticket = ticket
        self._undo = undo
        self._user = user
        self._marks = labels(spec.run_id, find_home().root)

    async def beside_a_gate(self, stdio: Stdio) -> DockerSandbox | None:
        """Return the command's container with its gate, whose door is open; None when the engine is elsewhere.

        Raises SandboxFailed.
        """
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self._remove, gate_name(self._spec.run_id))
            try:
                async with elsewhere_is_unreached(self._docker):
                    gate = await create_gate(self._docker, self._ticket, self._user, self._marks)
                undo.push_async_callback(gate.close)
                sandbox = await self._open(gate, stdio, undo)
            except DoorUnreached as failure:
                if self._spec.services:  # they would have no network to stand in
                    problem = f"services need an engine on this machine: {failure.problem}"
                    raise SandboxFailed(problem, hint="take them out of moat.yaml, or leave out --service") from None
                log.warning("the door cannot be reached from the engine", extra={"problem": failure.problem})
                return None
            if self._spec.services:
                from moat.runtimes.docker_services import Services

                services = Services(self._docker, self._spec.services, self._spec.limits, self._marks, undo)
                await services.check(self._ticket)
                await services.start(self._ticket, gate.network)
                sandbox.service_logs = services.logs
            self._undo.push_async_exit(undo.pop_all())
        return sandbox

    async def _open(self, gate: Gate, stdio: Stdio, undo: contextlib.AsyncExitStack) -> DockerSandbox:
        """Start the gate and open its door, and make the command's container meanwhile.

        Not so one that shows sockets of the gate's: the engine wants them to be there. Some want the gate itself.
        """
        if self._ticket.places or self._docker.gate_first:
            await self._start_gate(gate)
            return await self._make(undo, gate.network, stdio, gate)
        try:
            async with asyncio.TaskGroup() as group:
                making = group.create_task(self._make(undo, gate.network, stdio, gate))
                await self._start_gate(gate)
        except BaseExceptionGroup as failures:
            unreached, others = failures.split(DoorUnreached)
            lost = unreached or (others and others.split(SandboxFailed)[0])
            if lost is None:
                raise
            raise _first(lost) from None
        return making.result()

    async def _start_gate(self, gate: Gate) -> None:
        async with elsewhere_is_unreached(self._docker):
            await gate.start()
        await gate.open_door(self._ticket)

    async def alone(self, stdio: Stdio) -> DockerSandbox:
        """Return the command's container in the network of the fallback, with its proxy there. Raises SandboxFailed."""
        network = internal.network_name(self._spec.run_id)
        self._undo.push_async_callback(internal.remove, self._docker, network)
        self._spec = await internal.prepare(self._docker, self._spec, self._ticket, self._marks)
        return await self._make(self._undo, network, stdio, None)

    async def start(self, sandbox: DockerSandbox, created: Created) -> None:
        """Tell who wants to know of the command's container, and start it. Raises SandboxFailed."""
        await created(sandbox.container_id)
        if self._spec.terminal is not None:
            set_up_terminal(sandbox.stdio, has_one_inside=not sandbox.takes_keys)
        with told_as(self._docker, "start the command"):
            await self._docker.containers.container(sandbox.container_id).start()
        if self._spec.terminal is not None and not sandbox.takes_keys:
            await sandbox.resize(*self._spec.terminal)

    async def _make(
        self, undo: contextlib.AsyncExitStack, network: str, stdio: Stdio, gate: Gate | None
    ) -> DockerSandbox:
        """Create the command's container, and attach to it. Raises SandboxFailed, DoorUnreached beside a gate."""
        spec, name = self._spec, container_name(self._spec.run_id)
        if gate is not None:
            spec = replace(spec, mounts=(*spec.mounts, *mounts_of(self._ticket.folder, self._ticket.places)))
        stdio = undo.enter_context(own_descriptors(stdio))
        takes_keys = spec.terminal is not None and not is_terminal_wanted(stdio)
        if takes_keys:
            spec = replace(spec, terminal=None)
        config = agent_container(spec, network=network, user=self._user, seccomp=engine_profile(), marks=self._marks)
        undo.push_async_callback(self._remove, name)
        async with elsewhere_is_unreached(self._docker) if gate else contextlib.nullcontext():
            container_id = await create(self._docker, name, config if gate else internal.adapted(config))
        attachment = Attachment(self._docker, container_id, tty=spec.terminal is not None)
        undo.push_async_callback(attachment.close)
        await attachment.open()
        await name_user(self._docker, container_id, self._user, spec.home)
        sandbox = DockerSandbox(self._docker, container_id, attachment, stdio)
        sandbox.takes_keys = takes_keys
        sandbox.gate = gate
        if gate is not None and self._docker.removes_at_once:
            sandbox.names = (name, gate_name(spec.run_id))
        sandbox.command, sandbox.image = spec.argv[0], spec.image
        sandbox.caveat = "" if gate else internal.CAVEAT
        return sandbox

    async def _remove(self, name: str) -> None:
        await uninterrupted(remove(self._docker, name))


@contextlib.contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise what a group of tasks has met as it was raised there."""
    try:
        yield
    except BaseExceptionGroup as failures:
        met, _ = failures.split(MoatError)
        if met is None:
            raise
        raise _first(met) from None


async def _tried(call: Awaitable[None]) -> None:
    with contextlib.suppress(SandboxFailed):
        await call


async def _unless_ended(call: Awaitable[None]) -> None:
    try:
        await call
    except aiodocker.DockerError as failure:
        if failure.status not in (NOT_FOUND, CONFLICT):
            raise


def _first(failures: BaseExceptionGroup[MoatError]) -> MoatError:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure
