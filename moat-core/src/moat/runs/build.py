"""Makes the image that a run needs, if it is not there: a run of its own, sealed, without any grant, before the run.

register (no grants, the run's own policy) ─▶ files below /dev ─▶ gate, container, recipe ─▶ image ─▶ undone
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from moat.api.container import Mount
from moat.api.errors import DaemonError, SandboxFailed
from moat.api.images import BuildOrder, Images
from moat.api.runs import NetworkPolicy
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import patiently
from moat.daemon.process import exclusively
from moat.daemon.protocol import RegisterRequest, SetupRequest
from moat.ids import new_run_id
from moat.net.rules import rule_text
from moat.paths import Home
from moat.runs.build_files import COMMAND, build_files
from moat.runs.recipe import MARK, Recipe
from moat.runs.registering import door_ticket, write_files
from moat.runs.trust import host_roots

Told = Callable[[str], None]


class Builder:
    """Builds one recipe. policy: what the build may reach. told: gets each line of what the recipe prints."""

    def __init__(self, recipe: Recipe, images: Images, policy: NetworkPolicy, runtime: str, told: Told) -> None:
        self._recipe = recipe
        self._images = images
        self._policy = policy
        self._runtime = runtime
        self._lines = Lines(told)

    def ensure(self, home: Home, client: DaemonClient) -> bool:
        """Build the image unless it is there; return whether it was built. Blocking; one build at a time.

        Raises SandboxFailed, naming the step that failed, and what the daemon refuses.
        """
        with exclusively(home.daemon / "images.lock"):
            if asyncio.run(self._images.identify(self._recipe.tag)):
                return False
            asyncio.run(self._build(Home(home.root.resolve()), client))
        return True

    async def _build(self, home: Home, client: DaemonClient) -> None:
        run_id = new_run_id()
        async with AsyncExitStack() as undo:
            # Not in a thread: a registration that is cancelled half-way would leave a run that nobody ends.
            certificate = patiently(home, client, lambda asked: asked.setup(SetupRequest())).ca_certificate
            registered = patiently(home, client, lambda asked: asked.register(self._registration(run_id)))
            token, code = registered.auth_token, [1]
            undo.callback(_end, home, client, token, code)

            folder = home.inside(run_id)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            files = build_files(self._recipe, host_roots(), certificate)
            places = {path: folder / path.lstrip("/") for path in files}
            write_files(folder, {places[path]: text for path, text in files.items()})

            async def created(container_id: str) -> None:
                await asyncio.to_thread(
                    patiently, home, client, lambda asked: asked.tell_container(token, container_id)
                )

            order = self._order(run_id, places)
            code[0] = await self._images.build(order, door_ticket(home, registered), created, self._lines.take)
        if code[0]:
            raise self._lines.failure(code[0])

    def _order(self, run_id: str, places: dict[str, Path]) -> BuildOrder:
        mounts = tuple(Mount(place, path, read_only=True) for path, place in places.items())
        recipe = self._recipe
        return BuildOrder(run_id, recipe.base_id, recipe.base, recipe.tag, COMMAND, mounts, recipe.dependencies)

    def _registration(self, run_id: str) -> RegisterRequest:
        return RegisterRequest(
            run_id=run_id,
            name=f"image-{self._recipe.tag.rpartition(':')[2]}",
            network_policy=self._policy.mode,
            network_allow=self._policy.allow,
            network_rules=tuple(rule_text(rule) for rule in self._policy.rules),
            runtime=self._runtime,
            command=COMMAND,
            launcher_pid=os.getpid(),
        )


class Lines:
    """What a recipe prints, as lines, and at which of its steps it is."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._rest = b""
        self._step = self._last = ""

    def take(self, data: bytes) -> None:
        """Tell the lines that data completes. Of a line that was drawn over, only what stands at last."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-65_536:]
        for line in lines:
            self._tell(line)

    def failure(self, code: int) -> SandboxFailed:
        """Return the error for a recipe that ended with code."""
        if self._rest:
            self._tell(self._rest)
        where = f" at {self._step}" if self._step else ""
        told = f": {self._last}" if self._last else ""
        return SandboxFailed(
            f"the image could not be built{where} (exit {code}){told}",
            hint="see above; if a host was refused, allow it (network in moat.yaml, or --allow-host)",
        )

    def _tell(self, line: bytes) -> None:
        text = line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace").rstrip()
        if text.startswith(MARK):
            self._step, self._last = text.removeprefix(MARK), ""
        elif text:
            self._last = text
        if text:
            self._told(text)


def _end(home: Home, client: DaemonClient, token: str, code: list[int]) -> None:
    try:
        patiently(home, client, lambda asked: asked.end(token, code[0]))
    except DaemonError:
        return  # its successor finds the door closed, and ends the build itself
