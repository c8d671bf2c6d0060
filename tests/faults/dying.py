"""A launcher that kills itself at a chosen step: `python -m faults.dying RUNTIME WORKSPACE NAME STEP [PID]`.

Steps are the lines of what makes a run and undoes it, in the order in which they are about to be executed, from 1 on.
With step 0 it lives, and prints how many there were. PID: of a process that it kills with itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from moat.api.runs import RunSpec
from moat.api.runtimes import Stdio
from moat.api.services import Service
from moat.paths import find_home
from moat.runs import registering
from moat.runs.attach import Attachment
from moat.runs.launch import Launch
from moat.runs.prepare import prepare
from moat.runs.registering import registered_early, write_files
from moat.runtimes import bubblewrap_launch, docker_launch, docker_services
from moat.runtimes.bubblewrap import Bubblewrap
from moat.runtimes.bubblewrap_launch import BubblewrapSandbox
from moat.runtimes.detect import Begun
from moat.runtimes.docker import Docker
from moat.runtimes.docker_gate import Gate, create_gate
from moat.runtimes.podman import Podman
from support.service_images import REDIS

IMAGE = "debian:bookworm-slim"
CACHE = Service("cache", REDIS, 6379, "redis", user="redis")
MAKING: tuple[Any, ...] = (
    Launch._steps, Launch._end, write_files,
    Bubblewrap.launch, Bubblewrap._gate, bubblewrap_launch.launch, bubblewrap_launch._give,
    registering._Early.begin, bubblewrap_launch.provide,
    BubblewrapSandbox.outside,
    BubblewrapSandbox.open, BubblewrapSandbox.close,
    docker_launch.launch, docker_launch._Launch.beside_a_gate, docker_launch._Launch._open,
    docker_launch._Launch._make, docker_launch._Launch.start, docker_launch.DockerSandbox.close,
    docker_launch.DockerSandbox._removed,
    docker_services.Services.start, docker_services.Services._start, docker_services._Started.start,
    create_gate, Gate.start, Gate.open_door, Gate.close,
)  # fmt: skip


class Steps:
    """Counts the lines of some functions, and dies before one."""

    def __init__(self, last: int, others: tuple[int, ...]) -> None:
        self.seen = 0
        self._others = others
        self._last = last
        self._codes: set[CodeType] = {function.__code__ for function in MAKING}
        self._lines: set[tuple[CodeType, int]] = set()

    def call(self, frame: FrameType, event: str, argument: object) -> Any:
        """Follow a function that makes something; what sys.settrace wants."""
        return self._line if frame.f_code in self._codes else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        where = frame.f_code, frame.f_lineno
        if event == "line" and where not in self._lines:  # once each: a loop's turns are no further steps
            self._lines.add(where)
            self.seen += 1
            if self.seen == self._last:
                for pid in (*self._others, os.getpid()):
                    os.kill(pid, signal.SIGKILL)
        return self._line


def main(runtime: str, workspace: str, name: str, step: str, *others: str) -> None:
    """Run a short command as `moat run` would, up to the step."""
    command = ("sh", "-c", "sleep 0.2; echo done > done")
    spec = RunSpec(Path(workspace), command, name=name, runtime=runtime)
    if runtime == "podman":
        spec = replace(spec, image=IMAGE)
    if runtime == "docker":
        spec = replace(spec, image=IMAGE, services=(CACHE,))
    home, nothing = find_home(), os.open(os.devnull, os.O_RDWR)
    stdio = Stdio(nothing, nothing, nothing)
    steps = Steps(int(step), tuple(map(int, others)))
    with Begun() as begun:
        made = prepare(spec, home, [Docker(), Podman(), Bubblewrap()], {}, begun=begun)
        sys.settrace(steps.call)
        threading.settrace(steps.call)
        with registered_early(made.plan, home, made.client, made.runtime, stdio, lambda: None) as early:
            launch = Launch(made.plan, made.runtime, made.client, home, lambda sandbox: None, early=early)
            outcome = asyncio.run(launch.perform(Attachment(stdio)))
        sys.settrace(None)
    sys.stdout.write(f"{steps.seen} {outcome.exit_code}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
