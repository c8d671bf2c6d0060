"""The daemon's service for runs: what the management API calls. A run is visible once all of it is made, not before.

register ─▶ names checked ─▶ grants resolved ─▶ record, door or token ─▶ published ─▶ watched (`watch.py`) ─▶ end
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
from dataclasses import replace

from moat.api.errors import DaemonError, RunNotFound
from moat.api.runs import RunInfo
from moat.audit.chain import INSTALLATION, STARTED
from moat.daemon import audit_facts
from moat.daemon.doors import Door, Doors
from moat.daemon.grants import Resolved
from moat.daemon.listening import listening
from moat.daemon.liveness import is_process_id
from moat.daemon.parts import Parts
from moat.daemon.process import start_time
from moat.daemon.protocol import (
    DoorInfo,
    RegisterRequest,
    RegisterResponse,
    SetupRequest,
    SetupResponse,
    extras_of,
    needed_capabilities,
)
from moat.daemon.pulse import Rounds
from moat.daemon.registration import (
    checked_register,
    context_of,
    info_of,
    places_for,
    setup_of,
    spec_of,
    token_of,
)
from moat.daemon.registry import Entry, Place
from moat.daemon.renewal import Renewal
from moat.daemon.restore import Restore, served
from moat.daemon.watch import Watches
from moat.proxy.messages import Configure

log = logging.getLogger(__name__)


class Runs:
    """The daemon's service for runs. group: where each run's watch lives."""

    def __init__(self, parts: Parts, group: asyncio.TaskGroup) -> None:
        self._parts = parts
        self._doors = Doors(parts.home, parts.registry, parts.worker)
        self._watches = Watches(parts, group)
        self._coming: set[str] = set()
        self.renewal = Renewal(parts)
        self.restore = Restore(parts, self._doors, self._watches, self.renewal.catch_up, group)
        self.rounds = Rounds(parts.registry, parts.reaper, self._doors.is_open, self._watches.gone)

    async def connect(self, run_id: str, port: int) -> socket.socket:
        """Return a connection to a port inside a run. Raises ConnectionError."""
        return await self._doors.connect(run_id, port)

    @property
    def is_busy(self) -> bool:
        """Whether there is a run, or one is being made."""
        return bool(self._coming) or len(self._parts.registry) > 0

    async def setup(self, request: SetupRequest) -> SetupResponse:
        """Return what grants and plugins put into a run; changes nothing."""
        resolved = await asyncio.to_thread(self._parts.grants.resolve, spec_of(request))
        if request.mcp_grants:
            await asyncio.to_thread(self._parts.grants.learn, request.profile, request.mcp_grants)
        return setup_of(resolved, self._parts.installation.ca_certificate, self._parts.grants.known())

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """Make a run known, or give a live one new rules when its token comes along.

        Raises UsageError, GrantMissing, StoreLocked, StoreCorrupt, PlanConflict, PluginError, DaemonError: no run then.
        """
        checked_register(request)
        if request.run_id in self._coming:
            raise DaemonError(f"{request.run_id} is being registered already", hint="run: moat list")
        self._coming.add(request.run_id)
        try:
            spec = spec_of(request)
            resolved = await asyncio.to_thread(self._parts.grants.resolve, spec, extras_of(request))
            self._configure(await asyncio.to_thread(self._parts.installation.configuration))
            live = self._live(request)
            begun = self._begin(request, resolved) if live is None else self._renew(live, request, resolved)
            answer = await begun
            await self.renewal.catch_up(request.run_id, resolved)
            return answer
        finally:
            self._coming.discard(request.run_id)

    def tell_container(self, token: str, container_id: str) -> None:
        """Take the sandbox's id: the second phase of a registration. Raises RunNotFound."""
        entry = self._parts.registry.with_token(token)
        place = entry.place
        if not place.needs_door and not place.launcher and is_process_id(container_id):
            entry = replace(entry, place=replace(place, began=start_time(int(container_id)) or 0))
        self._watches.update(entry, replace(entry.info, container_id=container_id))
        if not place.needs_door:
            self._watches.opened(entry.run_id)
        self._watches.told(entry.run_id)

    async def end(self, token: str, exit_code: int | None) -> RunInfo:
        """End a run and return what is known about it; one that ended before is only completed. Raises RunNotFound."""
        run_id = self._run_of(token)
        self._watches.cancel(run_id)  # the CLI lives and cleans up itself
        info = await self._watches.finish(run_id, "stopped", exit_code)
        if exit_code is not None and info.exit_code != exit_code:
            info = replace(info, state="stopped", exit_code=exit_code)
            self._watches.write(info)
        return info

    def list(self) -> list[RunInfo]:
        """Return the live runs."""
        return [entry.info for entry in self._parts.registry]

    async def lose_all(self) -> None:
        """Mark every live run as lost; for the daemon's own end. Their gates hold the doors shut and stop them."""
        await self._watches.lose_all()

    async def calm(self) -> None:
        """Wait, bounded, until no run is half started."""
        await self._watches.calm()

    async def leave(self) -> None:
        """Let go of every run without ending it: its gate keeps the door, and the next daemon takes it over."""
        await self._watches.leave()

    def _configure(self, configuration: Configure) -> None:
        if self._parts.worker.configure(configuration):
            self._parts.auditor.note(INSTALLATION, "settings", audit_facts.settings(configuration))

    def _run_of(self, token: str) -> str:
        """Return the run that a token belongs to, or belonged to: it may be used again. Raises RunNotFound."""
        try:
            return self._parts.registry.with_token(token).run_id
        except RunNotFound:
            if (ended := self._parts.registry.ended_with_token(token)) is None:
                raise
            return ended

    def _live(self, request: RegisterRequest) -> Entry | None:
        if not request.auth_token:
            if self._parts.store.exists(request.run_id):
                raise DaemonError(f"{request.run_id} was used before", hint="register with a fresh run id")
            return None
        with contextlib.suppress(RunNotFound):
            entry = self._parts.registry.with_token(request.auth_token)
            if entry.run_id != request.run_id:
                raise DaemonError("the run token belongs to another run", hint="register without auth_token")
            return entry
        return None

    async def _renew(self, entry: Entry, request: RegisterRequest, resolved: Resolved) -> RegisterResponse:
        policy = spec_of(request).policy
        await self._audit_renewal(entry, request, resolved)
        entry = replace(entry, extras=extras_of(request), needs=needed_capabilities(request), unread="")
        self.restore.done(entry.run_id)
        is_open = self._doors.is_open(entry.run_id) or not entry.place.needs_door
        context = served(entry.context, resolved, is_open=is_open)
        context = replace(context, policy=policy, trace_bodies=request.trace_bodies)
        profile = spec_of(request).profile
        info = replace(entry.info, policy=policy.mode, grants=request.grants, profile=profile)
        if request.listen_on:
            return await self._serve_at(request, replace(entry, context=replace(context, is_open=True), info=info))
        self._watches.update(replace(entry, context=context), info)
        self._parts.worker.put(context)
        await self._parts.worker.barrier()
        await self._parts.ledger.settled()
        return RegisterResponse(entry.run_id, request.auth_token, self._parts.proxy_port)

    async def _audit_renewal(self, entry: Entry, request: RegisterRequest, resolved: Resolved) -> None:
        """Enter what a live run may from now on, and whose secrets were read for it. Raises AuditUnwritable."""
        facts = {"run": entry.run_id, "grants": [*request.grants], **audit_facts.policy(request)}
        await self._parts.auditor.noted(INSTALLATION, "policy", facts)
        self._audit_secrets(entry.run_id, resolved)

    def _audit_secrets(self, run_id: str, resolved: Resolved) -> None:
        for facts in audit_facts.marks_of(resolved):
            self._parts.auditor.note(run_id, "resolved", facts)

    async def _serve_at(self, request: RegisterRequest, entry: Entry) -> RegisterResponse:
        """Serve a run whose door cannot be reached at an address of this machine, by its token and no other."""
        listener = listening((0,), request.listen_on)
        port = int(listener.getsockname()[1])
        place = replace(_launched_by(request), needs_door=False, listen_on=request.listen_on, port=port)
        doorless = replace(entry, place=place)
        await self._watches.restart_without_door(entry.run_id)
        self._watches.update(doorless, doorless.info)
        self._parts.worker.put(doorless.context)
        self._parts.worker.listen(entry.run_id, "token", listener)
        await self._parts.worker.barrier()
        await self._parts.ledger.settled()
        log.info("run served without a door", extra={"run_id": entry.run_id, "address": request.listen_on})
        return RegisterResponse(entry.run_id, request.auth_token, port)

    async def _begin(self, request: RegisterRequest, resolved: Resolved) -> RegisterResponse:
        token, policy, run_id = token_of(request), spec_of(request).policy, request.run_id
        place = replace(_launched_by(request), needs_door=request.needs_door)
        context = context_of(request, policy, resolved, token)
        info = info_of(request, policy)
        info = replace(info, command=self._parts.grants.cleaned(info.command))  # it is written down, and listed
        entry = Entry(context, info, place, extras_of(request), needed_capabilities(request))
        places = places_for(resolved)
        await self._parts.auditor.noted(run_id, STARTED, audit_facts.started(request, entry.info))
        self._audit_secrets(run_id, resolved)
        try:
            door = await self._made(entry)
        except BaseException:
            self._parts.auditor.ended(replace(entry.info, state="lost"))
            raise
        self._watches.start(run_id, door)
        log.info("run registered", extra={"run_id": run_id, "grants": request.grants, "policy": policy.mode})
        opened = None if door is None else DoorInfo(str(door.folder), door.nonce, places)
        return RegisterResponse(run_id, token, self._parts.proxy_port, opened)

    async def _made(self, entry: Entry) -> Door | None:
        """Make everything that a run needs, publish it last; leave nothing when a part fails."""
        run_id = entry.run_id
        with contextlib.ExitStack() as undo:
            if not self._parts.store.exists(run_id):
                undo.callback(shutil.rmtree, self._parts.home.run(run_id), ignore_errors=True)
            try:
                self._parts.store.write(entry.info)
                door = self._doors.make(run_id) if entry.place.needs_door else None
            except OSError as failure:
                raise DaemonError(f"{run_id} cannot be written down: {failure}", hint="run: moat doctor") from failure
            if door is None:
                undo.callback(self._parts.worker.drop, run_id)
                self._parts.worker.put(entry.context, self._parts.store.read_names(run_id))
                await self._parts.worker.barrier()
            else:
                undo.callback(door.close)
                entry = replace(entry, place=replace(entry.place, nonce_sha256=door.nonce_sha256))
            self._parts.registry.publish(entry)
            undo.callback(self._parts.registry.remove, run_id)
            await self._parts.ledger.settled()
            undo.pop_all()
        return door


def _launched_by(request: RegisterRequest) -> Place:
    """Return who launches a run, so that he is known again."""
    pid = request.launcher_pid
    return Place(launcher=str(pid), began=start_time(pid) or 0) if pid else Place()
